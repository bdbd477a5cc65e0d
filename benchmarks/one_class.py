"""How do DROC's pretext tasks and classifiers compare where one class of pictures is good and all others are not?

    python -m benchmarks.one_class --data FOLDER [--good CLASS...] [--task NAME...] [--epochs N] [--seed N...]

The paper's CIFAR-10 protocol on a small budget: the network without padding at a quarter of its width instead of
ResNet-18, a few passes instead of 2,048. All training pictures of a class are learnt from and fitted to, all test
pictures are judged, with the representation of the last pass. Runs are kept in the work folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.harness import RESULTS, Answer, Document
from benchmarks.spread import spread
from engine.bench.environment import stamp
from engine.types import F32
from trainers.base import PretextKind
from trainers.dataset import resized
from trainers.dataset.labelled import Labelled, read_labelled
from trainers.dataset.resized import Resized
from trainers.droc import saved
from trainers.droc.detector import Detector
from trainers.droc.fit import fit
from trainers.droc.learn import DrocLearner
from trainers.droc.pictures import patch_features
from trainers.droc.pretext import Representation
from trainers.droc.settings import Settings
from trainers.droc.variants import CLASSIFIERS, TASKS
from trainers.learning.passes import seeded, torch_threads
from trainers.progress import Progress, on_stderr

QUESTION = "one_class"
SETTINGS = Settings(side_px=32, network="padding-free", width="narrow")
_BATCH = 500
Bad = npt.NDArray[np.bool_]


def measure(data: Labelled, test: Resized, settings: Settings, good: int, seed: int) -> Document:
    """Stage one on a class, then every classifier; `curve` is GDE's AUROC after each pass."""
    progress, started = on_stderr(), time.process_time()
    rows = np.flatnonzero(data.train.labels == good)
    training = resized.read([data.train.images[row] for row in rows.tolist()], settings.side_px, progress)
    with seeded(seed):
        model = saved.make_representation(settings, saved.make_trunk(settings))
    learner = DrocLearner(model, settings, seed, progress.say)
    bad, curve, learnt_s = data.test.labels != good, [], 0.0
    for number in range(settings.epochs):
        before = time.process_time()
        for _ in learner.epoch(training, number):
            pass
        learnt_s += time.process_time() - before
        curve.append(_auroc(_detector(learner.finish(), "gde", training, seed, progress), test, bad))
    kinds = (*CLASSIFIERS, "rotation-softmax") if settings.pretext == "rotation" else CLASSIFIERS
    found = {kind: _auroc(_detector(model, kind, training, seed, progress), test, bad) for kind in kinds}
    cost = {"learnt_cpu_s": round(learnt_s, 1), "cpu_s": round(time.process_time() - started, 1)}
    uniformity = [round(value, 4) for value in learner.uniformity]
    return {"AUROC": found, "curve": curve, "mmd": uniformity, **cost, "environment": stamp()}


def _detector(model: Representation, kind: str, training: Resized, seed: int, progress: Progress) -> Detector:
    if kind == "rotation-softmax":
        return saved.detector(model, None, SETTINGS)
    features = patch_features(model.trunk, training, len(training), seed, progress)
    return saved.detector(model, fit(kind, features), SETTINGS)


def _auroc(detector: Detector, test: Resized, bad: Bad) -> float:
    with torch.no_grad():
        parts = np.array_split(np.arange(len(test)), -(-len(test) // _BATCH))
        scores: list[F32] = [detector(torch.from_numpy(test.take(part))).numpy()[:, 0, 0] for part in parts]
    return round(float(roc_auc_score(bad, np.concatenate(scores))), 4)


def gather(work: Path) -> Iterator[Document]:
    """A row for every class, task and classifier that has runs in the work folder, over its seeds."""
    runs = [json.loads(path.read_text()) for path in sorted(work.glob("*.json"))]
    for good, task, epochs in dict.fromkeys((run["good"], run["task"], run["epochs"]) for run in runs):
        same = [run for run in runs if (run["good"], run["task"], run["epochs"]) == (good, task, epochs)]
        yield {"good": good, "task": task, "epochs": epochs, "runs": same}


def table(document: Document) -> str:
    """Markdown: AUROC, mean and standard deviation over the seeds that were run."""
    kinds = (*CLASSIFIERS, "rotation-softmax")
    lines = [
        f"| good class | pretext task | passes | seeds | {' | '.join(kinds)} | MMD | stage one, CPU s |",
        "|---" * (len(kinds) + 6) + "|",
    ]
    for row in document["rows"]:
        runs = row["runs"]
        scores = " | ".join(spread([run["AUROC"][kind] for run in runs if kind in run["AUROC"]]) for kind in kinds)
        mmd, seconds = spread([run["mmd"][-1] for run in runs]), np.median([run["learnt_cpu_s"] for run in runs])
        lines.append(
            f"| {row['good']} | {row['task']} | {row['epochs']} | {len(runs)} | {scores} | {mmd} | {seconds:.0f} |"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Run what is asked for and not there yet, then write the results of all that is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.one_class", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="labelled data, see trainers.dataset.labelled")
    parser.add_argument("--good", type=int, nargs="*", default=[0, 1, 2], help="classes that are good in turn")
    parser.add_argument("--task", nargs="*", default=list(TASKS), choices=TASKS)
    parser.add_argument("--epochs", type=int, default=6, help="passes")
    parser.add_argument("--seed", type=int, nargs="*", default=[0])
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/one_class"), help="keeps what was run")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON file goes")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    options = parser.parse_args(arguments)
    data = read_labelled(options.data)
    if data is None:
        parser.error(f"--data {options.data}: no labelled data there")
    options.work.mkdir(parents=True, exist_ok=True)
    with torch_threads(options.threads):
        test = resized.read(data.test.images, SETTINGS.side_px, on_stderr())
        for seed in options.seed:
            for good in options.good:
                for task in options.task:
                    _kept(data, test, (good, task, options.epochs, seed), options.work)
    print(Answer(QUESTION, {"data": options.data.name, "rows": list(gather(options.work))}).write(options.out))
    return 0


def _kept(data: Labelled, test: Resized, run: tuple[int, PretextKind, int, int], work: Path) -> None:
    good, task, epochs, seed = run
    path = work / f"{data.classes[good]}-{task}-{epochs}-{seed}.json"
    if not path.is_file():
        settings = replace(SETTINGS, pretext=task, epochs=epochs)
        found = measure(data, test, settings, good, seed)
        name = {"good": data.classes[good], "task": task, "epochs": epochs, "seed": seed}
        path.write_text(json.dumps(name | found, indent=1))
        print(path.name, found["AUROC"], file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
