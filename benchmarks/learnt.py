"""What do FYD's learnt parts gain over the plain Gaussian? Rows of the paper's Table 4, several seeds, every data set.

A run takes minutes, so each is kept in the work folder and an interrupted answer goes on where it was. The plain
Gaussian has no randomness: it is trained once for each data set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import mean

from benchmarks.harness import Answer, Context, DataSet, Document, data_sets
from benchmarks.spread import spread
from engine.config import Runtime
from engine.serving.select import read_and_open
from trainers.base import Trainer, TrainOptions, TrainReport, Variant
from trainers.evaluation import protocol
from trainers.evaluation.evaluate import Judge
from trainers.fyd import Fyd
from trainers.progress import Progress, on_stderr

QUESTION = "learnt"
EPOCHS = 4
SEEDS = (0, 1, 2)
PLAIN = "baseline"
ROWS = (PLAIN, "+ non-contrastive", "+ non-contrastive, ICA, FCA")
_METRICS = ("image_AUROC", "pixel_AUROC", "distance_variance")
_BATCH = 8


class Chosen:
    """A trainer whose protocol has some of the rows of the paper's Table 4."""

    name = Fyd.name
    takes = Fyd.takes

    def __init__(self, trainer: Trainer, labels: Sequence[str]) -> None:
        self._trainer = trainer
        self._labels = labels

    def train(self, options: TrainOptions, progress: Progress) -> TrainReport:
        """See `Trainer.train`."""
        return self._trainer.train(options, progress)

    def variants(self, name: str) -> list[Variant]:
        """See `Trainer.variants`."""
        rows = self._trainer.variants(name)
        return [row for row in rows if row.table == "Table 4" and row.label in self._labels]


def answer(context: Context) -> Answer:
    """Train and judge every row on every data set."""
    data = [{"name": data.name, "rows": list(_rows(context, data))} for data in data_sets(context)]
    return Answer(QUESTION, {"epochs": EPOCHS, "seeds": SEEDS, "data": data})


def _rows(context: Context, data: DataSet) -> Iterator[Document]:
    runs = [run for seed in SEEDS for run in _runs(context, data, seed)]
    for label in ROWS:
        yield {"variant": label, "runs": [run for run in runs if run["variant"] == label]}


def _runs(context: Context, data: DataSet, seed: int) -> list[Document]:
    """The rows of one seed, from the work folder where they are there."""
    path = context.folder(QUESTION) / f"{data.name}-{EPOCHS}-{seed}.json"
    if not path.is_file():
        labels = ROWS if seed == SEEDS[0] else ROWS[1:]
        options = TrainOptions(data.path, path.with_suffix(""), epochs=EPOCHS, seed=seed, threads=context.threads)
        outcome = protocol.run("ablation", Chosen(Fyd(), labels), options, _judge, on_stderr())
        path.write_text(json.dumps([{"seed": seed} | asdict(row) for row in outcome.rows], indent=1))
    runs: list[Document] = json.loads(path.read_text())
    return runs


@contextmanager
def _judge(path: Path) -> Iterator[Judge]:
    bundle, predictor = read_and_open(path, Runtime(backend="onnx"), _BATCH)
    yield Judge(predictor.predict, bundle.sheet, bundle.calibration("fp32"))
    predictor.close()


def table(document: Document) -> str:
    """Markdown: mean and standard deviation over seeds, and the gain over the plain Gaussian."""
    lines = [
        f"| data | {document['epochs']} epochs | seeds | image AUROC | gain | pixel AUROC | distance variance |",
        "|---|---|---|---|---|---|---|",
    ]
    for data in document["data"]:
        plain = _values(data["rows"][0], "image_AUROC")[0]
        for row in data["rows"]:
            found = {name: _values(row, name) for name in _METRICS}
            gain = mean(found["image_AUROC"]) - plain
            lines.append(
                f"| {data['name']} | {row['variant']} | {len(row['runs'])} | {spread(found['image_AUROC'])} "
                f"| {gain:+.3f} | {spread(found['pixel_AUROC'])} | {mean(found['distance_variance']):.3g} |"
            )
    return "\n".join(lines)


def _values(row: Document, name: str) -> list[float]:
    return [run[name] for run in row["runs"] if run[name] is not None]
