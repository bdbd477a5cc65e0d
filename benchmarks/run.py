"""`python -m benchmarks.run [QUESTION ...]`: answer questions and write benchmarks/results/QUESTION.json."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import (
    accuracy,
    common,
    corruption,
    dense,
    false_alarms,
    fusion,
    learnt,
    mean_picture,
    settings,
    storage,
    streaming,
    tiling,
    triton_backend,
)
from benchmarks.harness import RESULTS, Answer, Context
from benchmarks.peers import anomalib_padim
from engine.errors import EngineError

QUESTIONS: Mapping[str, Callable[[Context], Answer]] = {
    streaming.QUESTION: streaming.answer,
    accuracy.QUESTION: accuracy.answer,
    false_alarms.QUESTION: false_alarms.answer,
    settings.QUESTION: settings.answer,
    learnt.QUESTION: learnt.answer,
    mean_picture.QUESTION: mean_picture.answer,
    storage.QUESTION: storage.answer,
    triton_backend.QUESTION: triton_backend.answer,
    fusion.QUESTION: fusion.answer,
    common.QUESTION: common.answer,
    tiling.QUESTION: tiling.answer,
    corruption.QUESTION: corruption.answer,
    dense.QUESTION: dense.answer,
    anomalib_padim.QUESTION: anomalib_padim.answer,
}


def main(arguments: list[str]) -> int:
    """Answer the questions named, one after the other, so that none disturbs another."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("question", nargs="*", default=[streaming.QUESTION], metavar="QUESTION", help=_questions())
    parser.add_argument("--data", type=Path, nargs="+", default=(), help="folders in MVTec AD layout")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"), help="keeps bundles between runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON files go")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--anomalib", type=Path, help="the peer's environment, made by peers/anomalib/setup.sh")
    options = parser.parse_args(arguments)
    if unknown := set(options.question) - set(QUESTIONS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; expected some of {', '.join(QUESTIONS)}")
    context = Context(options.work, tuple(options.data), options.threads, options.anomalib)
    try:
        for question in options.question:
            print(QUESTIONS[question](context).write(options.out))
    except EngineError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 1
    return 0


def _questions() -> str:
    return f"some of {', '.join(QUESTIONS)} (default: {streaming.QUESTION})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
