"""A paper's evaluation protocol: several models trained and judged on one dataset, the rows of the paper's tables.

A protocol says which datasets there are (the given one, or disturbed copies of it), a method which models (its
`variants`). Every model becomes a bundle in a scratch folder and is judged as served.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.errors import UsageError
from trainers.base import Trainer, TrainOptions, Variant
from trainers.data import read_dataset
from trainers.disturb import CHANGES, write_disturbed
from trainers.evaluate import Judge, evaluate
from trainers.progress import Progress

OpenJudge = Callable[[Path], AbstractContextManager[Judge]]
Copies = Callable[[TrainOptions, Path, Progress], Iterator[tuple[str, Path]]]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: a variant on one copy of the data. Shares of 1; None where there are no masks.

    `pixel_AUPRO` is the papers' PRO; `distance_variance` FYD's equation 10 on the training pictures.
    """

    table: str
    data: str
    variant: str
    image_AUROC: float | None  # noqa: N815 - the names that scripts rely on
    pixel_AUROC: float | None  # noqa: N815
    pixel_AUPRO: float | None  # noqa: N815
    distance_variance: float | None
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


def run(name: str, trainer: Trainer, options: TrainOptions, open_judge: OpenJudge, progress: Progress) -> Outcome:
    """Train and judge every variant; `options.out` is not used, `open_judge` loads a bundle for judging.

    Raises UsageError where there is no such protocol, or the method has no part in it.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"protocol {name}: unknown; choose one of {', '.join(PROTOCOLS)}")
    variants = trainer.variants(name)
    if not variants:
        raise UsageError(f"protocol {name}: {trainer.name} has no part in it; choose another --method")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        for label, data in PROTOCOLS[name](options, Path(scratch), progress):
            here = replace(options, data=data, out=Path(scratch) / "bundle")
            rows += _judged(variants, label, here, open_judge, progress)
    return Outcome(name, trainer.name, tuple(rows))


def _judged(
    variants: Sequence[Variant], data: str, options: TrainOptions, open_judge: OpenJudge, progress: Progress
) -> Iterator[Row]:
    """The rows of one copy of the data; a trainer that stands in several tables trains once."""
    found: dict[int, Row] = {}
    for variant in variants:
        known = found.get(id(variant.trainer))
        if known is None:
            progress.say(f"{data}: {variant.label}")
            known = found[id(variant.trainer)] = _train_and_judge(variant, data, options, open_judge, progress)
        yield replace(known, table=variant.table, variant=variant.label)


def _train_and_judge(
    variant: Variant, data: str, options: TrainOptions, open_judge: OpenJudge, progress: Progress
) -> Row:
    report = variant.trainer.train(options, progress)
    with open_judge(report.bundle) as judge:
        quality = evaluate(judge, read_dataset(options.data), progress).overall
    variance = report.measured.get("distance_variance")
    return Row(
        table=variant.table,
        data=data,
        variant=variant.label,
        image_AUROC=quality.image_auroc,
        pixel_AUROC=quality.pixel_auroc,
        pixel_AUPRO=quality.pixel_aupro,
        distance_variance=variance if isinstance(variance, float) else None,
        train_s=round(report.train_s, 1),
    )


def _as_given(options: TrainOptions, scratch: Path, progress: Progress) -> Iterator[tuple[str, Path]]:
    yield options.data.name, options.data


def _disturbed(options: TrainOptions, scratch: Path, progress: Progress) -> Iterator[tuple[str, Path]]:
    dataset = read_dataset(options.data)
    for kind in CHANGES:
        yield kind, write_disturbed(dataset, kind, scratch / kind, options.seed, progress)


PROTOCOLS: dict[str, Copies] = {"ablation": _as_given, "disturbed": _disturbed}
