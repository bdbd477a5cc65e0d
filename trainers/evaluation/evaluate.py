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
from trainers.evaluation.metrics import Mask, PixelMeter, f1, image_auroc
from trainers.progress import Progress

Number = float | int | None


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
    """What an evaluation found; `overall` is over all defects, `pictures` hold every verdict in name order."""

    target_fpr: float
    n_good: int
    false_alarm_rate: float | None
    overall: Quality
    per_defect: dict[str, Quality]
    pictures: tuple[Judged, ...]

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

    def document(self) -> dict[str, Number | dict[str, dict[str, Number]]]:
        """The JSON of `engine eval --json`."""
        return {
            "image_AUROC": self.overall.image_auroc,
            "pixel_AUROC": self.overall.pixel_auroc,
            "pixel_AUPRO": self.overall.pixel_aupro,
            "f1": self.overall.f1,
            "false_alarm_rate": self.false_alarm_rate,
            "target_fpr": self.target_fpr,
            "n_good": self.n_good,
            "n_defect": self.n_defect,
            "per_defect": {name: _row(quality) for name, quality in self.per_defect.items()},
        }


def evaluate(judge: Judge, dataset: Dataset, progress: Progress) -> Evaluation:
    """Judge every test picture of a dataset (every picture of a plain folder), one batch in memory at a time.

    Raises DataError when there is nothing to judge or a file cannot be read.
    """
    items = dataset.judged
    if not items:
        raise DataError(
            f"{dataset.path}: no test pictures (expected test/good and test/DEFECT); "
            f"add some, or give a plain folder of good pictures to count false alarms"
        )
    pictures: list[Judged] = []
    kinds: tuple[str | None, ...] = (None, *dataset.defects)
    meters = {kind: PixelMeter() for kind in kinds}
    with progress.task("evaluate", len(items)) as task:
        for sight in look(judge, items):
            pictures.append(sight.judged)
            if sight.judged.defect is None or sight.mask is not None:
                meters[sight.judged.defect].add(sight.values, sight.mask)
            task.advance()
    return _summary(pictures, meters, judge.calibration.image_estimate.target_fpr)


def look(judge: Judge, items: Sequence[Item], batch: int = 8) -> Iterator[Sight]:
    """Read and judge pictures in order, `batch` at a time.

    Raises DataError naming a file that cannot be read, or that the region of interest is not in.
    """
    files = Pictures(items)
    for start in range(0, len(items), batch):
        images = [files[i] for i in range(start, min(start + batch, len(items)))]
        raw = judge.predict(np.stack([judge.sheet.fit(image) for image in images]))
        for i, image in enumerate(images):
            item, score = items[start + i], float(raw.scores[i])
            members = {name: float(scores[i]) for name, scores in raw.members.items()}
            height, width = image.shape[:2]
            view = _view(judge, item, (height, width))
            if view is not None:
                score = narrowed(score, raw.maps[i], view, judge.calibration)
            yield Sight(
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


def _summary(pictures: list[Judged], meters: dict[str | None, PixelMeter], target_fpr: float) -> Evaluation:
    good = [p for p in pictures if p.defect is None]
    bad = [p for p in pictures if p.defect is not None]
    per_defect = {
        defect: _quality(good, [p for p in bad if p.defect == defect], PixelMeter.total([meters[None], meter]))
        for defect, meter in meters.items()
        if defect is not None
    }
    return Evaluation(
        target_fpr=target_fpr,
        n_good=len(good),
        false_alarm_rate=float(np.mean([p.rejected for p in good])) if good else None,
        overall=_quality(good, bad, PixelMeter.total(meters.values())),
        per_defect=per_defect,
        pictures=tuple(pictures),
    )


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


def _row(quality: Quality) -> dict[str, Number]:
    return {
        "n": quality.n,
        "image_AUROC": quality.image_auroc,
        "pixel_AUROC": quality.pixel_auroc,
        "pixel_AUPRO": quality.pixel_aupro,
        "f1": quality.f1,
        "recall": quality.recall,
    }
