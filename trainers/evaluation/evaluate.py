"""How well a detector tells good pictures from defective ones, on maps and scores as the engine publishes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engine.contract import Calibration
from engine.decide import calibrated_score, narrowed, pixel_scores, quantised
from engine.errors import ContractError, DataError
from engine.interest import View
from engine.serving.base import RawBatch
from engine.sheet import Sheet
from engine.types import F64, U8
from trainers.dataset.good import Dataset, Item, Pictures, read_mask
from trainers.evaluation.bootstrap import (
    COVERAGE,
    RESAMPLES,
    SEED,
    Bootstrap,
    Interval,
    Intervals,
    PixelBootstrap,
    share_interval,
)
from trainers.evaluation.metrics import Mask, PixelMeter, f1, image_auroc
from trainers.progress import Progress

Number = float | int | None
Json = Number | str | list[float] | dict[str, "Json"]
BATCH = 8


@dataclass(frozen=True, slots=True)
class Judge:
    """A detector with its calibration: `predict` takes N sheets of pictures, see `engine.serving.base`.

    `view` gives what counts of a picture of a (height, width) px, see `engine.interest`; None: all of it.
    """

    predict: Callable[[U8], RawBatch]
    sheet: Sheet
    calibration: Calibration
    view: Callable[[tuple[int, int]], View | None] = lambda size: None


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on one picture; `members` are the raw scores of an ensemble's."""

    item: Item
    raw_score: float
    pred_score: float
    members: Mapping[str, float] = field(default_factory=dict)

    @property
    def defect(self) -> str | None:
        """The true type of its defect, None when good."""
        return self.item.defect

    @property
    def rejected(self) -> bool:
        """`pred_label` of the wire contract."""
        return self.pred_score >= 0.5

    @property
    def right(self) -> bool:
        """Whether a defective picture was rejected or a good one passed."""
        return self.rejected == (self.defect is not None)


@dataclass(frozen=True, slots=True)
class Sight:
    """One picture as the judge sees it.

    `image` is (H, W, 3) of its own size; `values` (H, W) uint16 is the wire contract's anomaly map; `mask` (H, W) is
    the ground truth, None where there is none.
    """

    judged: Judged
    image: U8
    values: npt.NDArray[np.uint16]
    mask: Mask | None


@dataclass(frozen=True, slots=True)
class Quality:
    """How well one type of defect, or all of them, is told from the good pictures; None where undefined.

    `recall` is the share of the defective pictures that is rejected.
    """

    n: int
    image_auroc: float | None
    pixel_auroc: float | None
    pixel_aupro: float | None
    f1: float | None
    recall: float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation found; `overall` is over all defects, `pictures` hold every verdict in name order.

    `intervals` are of the figures over all defects; `pro` is the per-region overlap (151,) at `metrics.PRO_RATES`,
    None where there are no masks.
    """

    target_fpr: float
    n_good: int
    false_alarm_rate: float | None
    overall: Quality
    per_defect: dict[str, Quality]
    pictures: tuple[Judged, ...]
    intervals: Intervals
    pro: F64 | None

    @property
    def n_defect(self) -> int:
        """Defective pictures judged."""
        return self.overall.n

    @property
    def good(self) -> tuple[Judged, ...]:
        """The verdicts on good pictures."""
        return tuple(p for p in self.pictures if p.defect is None)

    @property
    def defective(self) -> tuple[Judged, ...]:
        """The verdicts on defective pictures."""
        return tuple(p for p in self.pictures if p.defect is not None)

    def figures(self) -> dict[str, Json]:
        """What is known of all defects together, with its intervals, for JSON."""
        return {
            "image_AUROC": self.overall.image_auroc,
            "pixel_AUROC": self.overall.pixel_auroc,
            "pixel_AUPRO": self.overall.pixel_aupro,
            "f1": self.overall.f1,
            "recall": self.overall.recall,
            "false_alarm_rate": self.false_alarm_rate,
            "target_fpr": self.target_fpr,
            "intervals": _intervals(self.intervals),
        }

    def document(self) -> dict[str, Json]:
        """The JSON of `engine eval --json`."""
        return self.figures() | {
            "bootstrap": {"coverage": COVERAGE, "resamples": RESAMPLES, "seed": SEED},
            "n_good": self.n_good,
            "n_defect": self.n_defect,
            "per_defect": {name: _row(quality) for name, quality in self.per_defect.items()},
        }


class Tally:
    """What one detector makes of n pictures, taken in one by one in the order of `items`."""

    def __init__(self, items: Sequence[Item], bootstrap: Bootstrap, target_fpr: float) -> None:
        self._target_fpr = target_fpr
        self._bootstrap = bootstrap
        self._pictures: list[Judged] = []
        self._meters = {kind: PixelMeter() for kind in (None, *sorted({i.defect for i in items if i.defect}))}
        self._pixels = PixelBootstrap(bootstrap)

    def add(self, sight: Sight) -> None:
        """Take in the next picture."""
        judged = sight.judged
        if judged.defect is None or sight.mask is not None:
            meter = PixelMeter()
            meter.add(sight.values, sight.mask)
            self._meters[judged.defect].take(meter)
            self._pixels.add(len(self._pictures), meter)
        self.note(judged)

    def note(self, judged: Judged) -> None:
        """Take in the next picture without a map: it does not count among pixel figures."""
        self._pictures.append(judged)

    def evaluation(self) -> Evaluation:
        """The sum."""
        good = [p for p in self._pictures if p.defect is None]
        bad = [p for p in self._pictures if p.defect is not None]
        meter = PixelMeter.total(self._meters.values())
        return Evaluation(
            target_fpr=self._target_fpr,
            n_good=len(good),
            false_alarm_rate=float(np.mean(_rejected(good))) if good else None,
            overall=_quality(good, bad, meter),
            per_defect={
                kind: _quality(
                    good,
                    [p for p in bad if p.defect == kind],
                    PixelMeter.total([self._meters[None], self._meters[kind]]),
                )
                for kind in self._meters
                if kind is not None
            },
            pictures=tuple(self._pictures),
            intervals=self._intervals(good, bad),
            pro=meter.pro(),
        )

    def _intervals(self, good: list[Judged], bad: list[Judged]) -> Intervals:
        return Intervals(
            image_auroc=self._bootstrap.auroc(_scores(self._pictures)),
            pixel_auroc=self._pixels.auroc(),
            pixel_aupro=self._pixels.aupro(),
            f1=self._bootstrap.f1(_rejected(self._pictures)),
            recall=share_interval(int(_rejected(bad).sum()), len(bad)),
            false_alarm_rate=share_interval(int(_rejected(good).sum()), len(good)),
        )


def evaluate(judge: Judge, dataset: Dataset, progress: Progress) -> Evaluation:
    """Judge every test picture of a dataset (every picture of a plain folder), one batch in memory at a time.

    Raises DataError when there is nothing to judge or a file cannot be read.
    """
    items = judged_items(dataset)
    tally = Tally(items, bootstrap_of(items), judge.calibration.image_estimate.target_fpr)
    with progress.task("evaluate", len(items)) as task:
        for sight in look(judge, items):
            tally.add(sight)
            task.advance()
    return tally.evaluation()


def judged_items(dataset: Dataset) -> Sequence[Item]:
    """The pictures of a dataset that are judged; raises DataError where there are none."""
    if not dataset.judged:
        raise DataError(
            f"{dataset.path}: no test pictures (expected test/good and test/DEFECT); "
            f"add some, or give a plain folder of good pictures to count false alarms"
        )
    return dataset.judged


def bootstrap_of(items: Sequence[Item]) -> Bootstrap:
    """The draws from these pictures."""
    return Bootstrap(np.array([item.defect is not None for item in items], bool))


def look(judge: Judge, items: Sequence[Item], batch: int = BATCH) -> Iterator[Sight]:
    """Read and judge pictures in order, `batch` at a time.

    Raises DataError naming a file that cannot be read, or that the region of interest is not in.
    """
    for some, images in batches(items, batch):
        raw = judge.predict(np.stack([judge.sheet.fit(image) for image in images]))
        for i, (item, image) in enumerate(zip(some, images, strict=True)):
            yield seen(judge, item, image, raw, i)


def batches(items: Sequence[Item], batch: int = BATCH) -> Iterator[tuple[Sequence[Item], list[U8]]]:
    """The pictures in order, `batch` at a time; raises DataError naming a file that cannot be read."""
    files = Pictures(items)
    for start in range(0, len(items), batch):
        some = items[start : start + batch]
        yield some, [files[start + i] for i in range(len(some))]


def seen(judge: Judge, item: Item, image: U8, raw: RawBatch, i: int) -> Sight:
    """What the judge makes of a batch's i-th output; raises DataError where the region of interest does not fit."""
    height, width = image.shape[:2]
    score, view = float(raw.scores[i]), _view(judge, item, (height, width))
    if view is not None:
        score = narrowed(score, raw.maps[i], view, judge.calibration)
    members = {name: float(scores[i]) for name, scores in raw.members.items()}
    return Sight(
        judged=Judged(item, score, calibrated_score(score, judge.calibration), members),
        image=image,
        values=quantised(pixel_scores(raw.maps[i], judge.calibration, (height, width), view)),
        mask=None if item.mask is None else read_mask(item.mask, height, width),
    )


def _view(judge: Judge, item: Item, size: tuple[int, int]) -> View | None:
    try:
        return judge.view(size)
    except ContractError as error:
        raise DataError(f"{item.name}: {error}") from None


def _quality(good: list[Judged], bad: list[Judged], meter: PixelMeter) -> Quality:
    rejected = _rejected(bad)
    return Quality(
        n=len(bad),
        image_auroc=image_auroc(_scores(good), _scores(bad)),
        pixel_auroc=meter.auroc(),
        pixel_aupro=meter.aupro(),
        f1=f1(_rejected(good), rejected),
        recall=float(rejected.mean()) if bad else None,
    )


def _scores(pictures: list[Judged]) -> F64:
    return np.array([p.raw_score for p in pictures])


def _rejected(pictures: list[Judged]) -> Mask:
    return np.array([p.rejected for p in pictures], bool)


def _row(quality: Quality) -> dict[str, Json]:
    return {
        "n": quality.n,
        "image_AUROC": quality.image_auroc,
        "pixel_AUROC": quality.pixel_auroc,
        "pixel_AUPRO": quality.pixel_aupro,
        "f1": quality.f1,
        "recall": quality.recall,
    }


def _intervals(intervals: Intervals) -> dict[str, Json]:
    found: dict[str, Interval | None] = {
        "image_AUROC": intervals.image_auroc,
        "pixel_AUROC": intervals.pixel_auroc,
        "pixel_AUPRO": intervals.pixel_aupro,
        "f1": intervals.f1,
        "recall": intervals.recall,
        "false_alarm_rate": intervals.false_alarm_rate,
    }
    return {name: None if each is None else list(each) for name, each in found.items()}
