"""A paper's evaluation protocol: several models trained and judged on one dataset, the rows of the paper's tables.

A method says which models there are (its `variants`) and on which copies of the data (`trainers.dataset.copies`). Data
of several classes is judged class by class, as one-class data of each. Every model becomes a bundle in a scratch folder
and is judged as served.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import UsageError
from trainers.base import Shared, Trainer, TrainOptions, TrainReport, Variant
from trainers.dataset.copies import at_ratio, copy_named
from trainers.dataset.good import Dataset, read_dataset
from trainers.dataset.labelled import read_labelled, write_one_class
from trainers.evaluation.evaluate import Judge, evaluate
from trainers.progress import Progress

PROTOCOLS = ("ablation", "contaminated", "disturbed", "one-class", "small")
MEAN = "mean of classes"

OpenJudge = Callable[[Path], AbstractContextManager[Judge]]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: a variant on one copy of the data. Shares of 1; None where there are no masks.

    `data` is the dataset or its class that was good; `pixel_AUPRO` is the papers' PRO; `distance_variance` FYD's
    equation 10 on the training pictures, `mmd` DROC's uniformity (Figure 8). `train_s` is that of what
    variants do not share.
    """

    table: str
    data: str
    copy: str
    variant: str
    image_AUROC: float | None  # noqa: N815 - the names that scripts rely on
    pixel_AUROC: float | None  # noqa: N815
    pixel_AUPRO: float | None  # noqa: N815
    distance_variance: float | None
    mmd: float | None
    train_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """All rows of a protocol, in the order of the paper's tables."""

    protocol: str
    method: str
    rows: tuple[Row, ...]

    def document(self) -> dict[str, Any]:
        """The JSON of `engine protocol --json`."""
        return {"protocol": self.protocol, "method": self.method, "rows": [asdict(row) for row in self.rows]}


def run(
    name: str,
    trainer: Trainer,
    options: TrainOptions,
    open_judge: OpenJudge,
    progress: Progress,
    ratio: float | None = None,
) -> Outcome:
    """Train and judge every variant; `options.out` is not used, `open_judge` loads a bundle for judging.

    `ratio` is the share of bad pictures of `contaminated`, instead of the papers'. Raises UsageError where there is no
    such protocol, the method has no part in it, or it is `one-class` and the data has no classes.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"protocol {name}: unknown; choose one of {', '.join(PROTOCOLS)}")
    if ratio is not None and name != "contaminated":
        raise UsageError(f"--ratio: of protocol contaminated only, not of {name}; leave it out")
    variants = trainer.variants(name)
    if not variants:
        raise UsageError(f"protocol {name}: {trainer.name} has no part in it; choose another --method")
    if ratio is not None:
        variants = _at_ratio(variants, ratio)
    rows: list[Row] = []
    bases = 0
    for label, data in _bases(name, options, progress):
        bases += 1
        rows += _rows(variants, label, replace(options, data=data), open_judge, progress)
    means = list(_means(rows)) if bases > 1 else []
    return Outcome(name, trainer.name, (*rows, *means))


def _at_ratio(variants: Sequence[Variant], ratio: float) -> list[Variant]:
    """The same with one share of bad pictures instead of several."""
    found = {}
    for variant in variants:
        label = at_ratio(variant.label, ratio)
        shared = variant.representation
        if shared is not None and shared.copy is not None:
            shared = replace(shared, copy=at_ratio(shared.copy, ratio))
        copies = tuple(dict.fromkeys(at_ratio(copy, ratio) for copy in variant.copies))
        found[variant.table, label] = replace(variant, label=label, copies=copies, representation=shared)
    return list(found.values())


def _bases(name: str, options: TrainOptions, progress: Progress) -> Iterator[tuple[str, Path]]:
    """The dataset as it is, or one-class data of each of its classes in turn."""
    labelled = read_labelled(options.data)
    if labelled is None:
        if name == "one-class":
            raise UsageError(
                f"protocol one-class: {options.data} has no classes (expected idx files, a train and a test npz, or "
                f"train/CLASS and test/CLASS); for good and defective pictures use `engine train` and `engine eval`"
            )
        yield options.data.name, options.data
        return
    for index, kind in enumerate(labelled.classes):
        with tempfile.TemporaryDirectory() as scratch:
            spare = name == "contaminated"
            yield kind, write_one_class(labelled, index, Path(scratch), progress, spare=spare)


@dataclass(frozen=True, slots=True)
class Bench:
    """One dataset under a protocol: its copies, and the representations that variants share, each made once."""

    dataset: Dataset
    folder: Path
    options: TrainOptions
    progress: Progress
    copies: dict[str, Path] = field(default_factory=dict)
    representations: dict[tuple[int, str], Path] = field(default_factory=dict)

    def copy(self, name: str) -> Path:
        """Where a copy lies."""
        if name not in self.copies:
            folder = self.folder / f"data{len(self.copies)}"
            self.copies[name] = copy_named(name)(self.dataset, folder, self.options.seed, self.progress)
        return self.copies[name]

    def options_of(self, variant: Variant, copy: str) -> TrainOptions:
        """What a variant is trained with on a copy."""
        here = replace(self.options, data=self.copy(copy), out=self.folder / "bundle")
        if variant.representation is None:
            return here
        made = self._representation(variant.representation, copy)
        return replace(here, representation=made, epochs=None, image_size=None, backbone=None)

    def _representation(self, shared: Shared, copy: str) -> Path:
        key = id(shared.trainer), shared.copy or copy
        if key not in self.representations:
            out = self.folder / f"representation{len(self.representations)}"
            self.progress.say(f"representation of {key[1]}")
            shared.trainer.train(replace(self.options, data=self.copy(key[1]), out=out), self.progress)
            self.representations[key] = out
        return self.representations[key]


def _rows(
    variants: Sequence[Variant], label: str, options: TrainOptions, open_judge: OpenJudge, progress: Progress
) -> Iterator[Row]:
    """All variants on all the copies they want of one dataset, copy by copy."""
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(read_dataset(options.data), Path(scratch), options, progress)
        for copy in dict.fromkeys(copy for variant in variants for copy in variant.copies):
            wanted = [variant for variant in variants if copy in variant.copies]
            yield from _judged(wanted, label, copy, bench, open_judge)


def _judged(variants: Sequence[Variant], label: str, copy: str, bench: Bench, open_judge: OpenJudge) -> Iterator[Row]:
    """The rows of one copy of the data; what stands in several tables is trained once."""
    found: dict[tuple[object, ...], Row] = {}
    for variant in variants:
        key = variant.training
        if key not in found:
            bench.progress.say(f"{label}, {copy}: {variant.label}")
            trained = _train_and_judge(variant, bench.options_of(variant, copy), open_judge, bench.progress)
            found[key] = replace(trained, data=label, copy=copy)
        yield replace(found[key], table=variant.table, variant=variant.label)


def _train_and_judge(variant: Variant, options: TrainOptions, open_judge: OpenJudge, progress: Progress) -> Row:
    report = variant.trainer.train(options, progress)
    with open_judge(report.bundle) as judge:
        quality = evaluate(judge, read_dataset(options.data), progress).overall
    return Row(
        table=variant.table,
        data="",
        copy="",
        variant=variant.label,
        image_AUROC=quality.image_auroc,
        pixel_AUROC=quality.pixel_auroc,
        pixel_AUPRO=quality.pixel_aupro,
        distance_variance=_measured(report, "distance_variance"),
        mmd=_measured(report, "mmd"),
        train_s=round(report.train_s, 1),
    )


def _measured(report: TrainReport, name: str) -> float | None:
    value = report.measured.get(name)
    return value if isinstance(value, float) else None


def _means(rows: Sequence[Row]) -> Iterator[Row]:
    """For each line of the tables, the mean over classes of what every class has."""
    lines = dict.fromkeys((row.table, row.copy, row.variant) for row in rows)
    for line in lines:
        same = [row for row in rows if (row.table, row.copy, row.variant) == line]
        yield replace(
            same[0],
            data=MEAN,
            image_AUROC=_mean([row.image_AUROC for row in same]),
            pixel_AUROC=_mean([row.pixel_AUROC for row in same]),
            pixel_AUPRO=_mean([row.pixel_AUPRO for row in same]),
            distance_variance=_mean([row.distance_variance for row in same]),
            mmd=_mean([row.mmd for row in same]),
            train_s=round(sum(row.train_s for row in same), 1),
        )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
