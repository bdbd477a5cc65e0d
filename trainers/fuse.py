"""`engine fuse`: bundles trained on the same pictures become one, calibrated together.

What the members say of good pictures comes from their records (`trainers.record`, `trainers.joint`). What they say of
defects is measured as they are served: on held-out pictures with a synthetic defect each, and on the dataset's own
defective pictures where it has any. Defects decide nothing; they show what the cascade would miss.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file

from engine import bundle as bundles
from engine.bundle import Bundle
from engine.cascade import DEFAULT_BOUND, KINDS, Limit, Outcome, Pairs, exit_limit, outcome
from engine.contract import MANIFEST_NAME, Calibration, Ensemble, Input, Manifest, Member, Precision, Rule
from engine.decide import not_good_from
from engine.errors import DataError, UsageError
from engine.fusion import fuse as fuse_scores
from engine.serving.base import RawBatch
from engine.types import U8
from trainers import manifest as manifests
from trainers import record
from trainers.base import DEFAULT_TARGET_FPR, TrainReport
from trainers.calibrate import level_of
from trainers.data import Dataset, Pictures, TrainingSet, check_training, read_dataset
from trainers.joint import Fused, How, Joint, Scales, fuse_jointly, join
from trainers.progress import Progress
from trainers.synthetic import DEFECTS, with_defect

METHOD = "ensemble"
DEFECT_SHARE = 0.01  # of the frames, for the mean cost that is reported
_SYNTHETIC = 50  # pictures at most, each with every kind of defect
_LABELLED = 400  # at most, evenly spread
_TIMED = 5

Predict = Callable[[U8], RawBatch]
OpenMember = Callable[[Bundle, Precision], AbstractContextManager[Predict]]


@dataclass(frozen=True, slots=True)
class FuseOptions:
    """What `engine fuse` was asked for; `data` is the folder that all `members` were trained on.

    `weights` of the mean, one a member; None: equal ones. `review_fpr` sets the second, lower threshold by the share of
    good pictures that may reach it; None: there is none.
    """

    members: tuple[Path, ...]
    data: Path
    out: Path
    target_fpr: float = DEFAULT_TARGET_FPR
    review_fpr: float | None = None
    rule: Rule = "mean"
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A member to be: its name in the ensemble, its bundle, its weight, what runs it and what a picture costs."""

    name: str
    bundle: Bundle
    weight: float
    predict: Predict
    cost_ms: float


def fuse(options: FuseOptions, open_member: OpenMember, progress: Progress) -> TrainReport:
    """Fuse bundles into `options.out`.

    Raises UsageError (or a kind of it) where bundles cannot be fused, were trained on other pictures than `data`, or
    have no record of held-out scores.
    """
    started_s = time.perf_counter()
    members = [bundles.read(path) for path in options.members]
    weights = _checked(options, members)
    dataset = read_dataset(options.data)
    data = check_training(dataset)
    _check_pictures(options, members, data)
    precisions = [p for p in members[0].precisions if all(p in member.precisions for member in members)]
    with bundles.writing(options.out) as folder:
        named = list(zip(_names(members), members, weights, strict=True))
        for name, member, _ in named:
            shutil.copytree(member.path, folder / "members" / name)
        found = {}
        for precision in precisions:
            with ExitStack() as stack:
                models = [
                    Model(name, member, weight, predict, _cost_ms(predict, member))
                    for name, member, weight in named
                    for predict in [stack.enter_context(open_member(member, precision))]
                ]
                models.sort(key=lambda model: model.cost_ms)
                found[precision] = _Fusing(options, models, precision, dataset, data, progress).run(folder)
        document = _manifest(options, members, data, found)
        bundles.write_manifest(folder, document)
    calibrations = {precision: ensemble.calibration for precision, (ensemble, _) in found.items()}
    seconds = time.perf_counter() - started_s
    return TrainReport(options.out, METHOD, document.version, seconds, calibrations, document.report)


@dataclass(frozen=True, slots=True)
class _Fusing:
    """One precision under way."""

    options: FuseOptions
    models: list[Model]
    precision: Precision
    dataset: Dataset
    data: TrainingSet
    progress: Progress

    def run(self, folder: Path) -> tuple[Ensemble, dict[str, float | int | str | None]]:
        """Write the frames' file; the ensemble and what was measured."""
        records = [record.read(model.bundle, self.precision) for model in self.models]
        joint = join([model.name for model in self.models], records)
        how = How(self.options.rule, tuple(model.weight for model in self.models), _largest(self.models))
        folds = max(model.bundle.calibration(self.precision).image_estimate.folds for model in self.models)
        fused = fuse_jointly(joint, how, folds, self.options.target_fpr)
        calibration = self._with_review(fused)
        pairs = {"good": fused.good, **self._defects(joint, fused.scales, how)}
        path = folder / f"frames.{self.precision}.safetensors"
        save_file({f"{k}.{f}": getattr(pairs[k], f) for k in KINDS for f in ("first", "fused")}, path)
        members = [self._member(folder, i, fused.scales) for i in range(len(self.models))]
        ensemble = Ensemble(tuple(members), how.rule, calibration, bundles.describe(path, folder))
        return ensemble, _measured(pairs, calibration, [model.cost_ms for model in self.models])

    def _member(self, folder: Path, i: int, scales: Scales) -> Member:
        model = self.models[i]
        manifest = bundles.describe(folder / "members" / model.name / MANIFEST_NAME, folder)
        return Member(model.name, manifest, scales.image[i], scales.pixel[i], model.weight, model.cost_ms)

    def _with_review(self, fused: Fused) -> Calibration:
        rate = self.options.review_fpr
        if rate is None:
            return fused.calibration
        level = level_of(fused.good.fused, rate, fused.calibration.image_estimate.folds)[0]
        return msgspec.structs.replace(fused.calibration, review=float(np.nextafter(level, np.inf)))

    def _defects(self, joint: Joint, scales: Scales, how: How) -> dict[str, Pairs]:
        """Synthetic and labelled defects as the members see them now."""
        place = {content: i for i, content in enumerate(self.data.contents)}
        rows = np.array([place[content] for content in joint.contents])
        held_out = self.data.pictures.subset(_spread(rows, _SYNTHETIC))
        defective = [item for item in self.dataset.test if item.defect is not None]
        labelled = Pictures([defective[i] for i in _spread(np.arange(len(defective)), _LABELLED)])
        good = (held_out[i] for i in range(len(held_out)))
        generator = torch.Generator().manual_seed(0)
        made = (with_defect(image[None], kind, generator)[0] for image in good for kind in DEFECTS)
        return {
            "synthetic": self._judged("synthetic defects", made, len(held_out) * len(DEFECTS), scales, how),
            "labelled": self._judged(
                "labelled defects", (labelled[i] for i in range(len(labelled))), len(labelled), scales, how
            ),
        }

    def _judged(self, what: str, images: Iterator[U8], n: int, scales: Scales, how: How) -> Pairs:
        first, fused = np.zeros(n), np.zeros(n)
        with self.progress.task(f"{self.precision}: {what}", n) as task:
            for i, image in enumerate(images):
                raw = [model.predict(model.bundle.sheet.fit(image)[None]).scores for model in self.models]
                surprises = [tail.of(score) for tail, score in zip(scales.image, raw, strict=True)]
                first[i] = surprises[0][0]
                fused[i] = fuse_scores(surprises, how.weights, how.rule)[0]
                task.advance()
        return Pairs(first, fused)


def _checked(options: FuseOptions, members: Sequence[Bundle]) -> tuple[float, ...]:
    """The weights; raises UsageError where the bundles cannot be members of one ensemble."""
    if len(members) < 2:
        raise UsageError(f"engine fuse: expected at least two bundles, got {len(members)}")
    for member in members:
        if member.members:
            raise UsageError(f"{member.path}: is an ensemble itself; name its members, in {member.path}/members")
    twice = [name for name, count in Counter(_names(members)).items() if count > 1]
    if twice:
        raise UsageError(
            f"engine fuse: two members would be named {twice[0]!r}; train one of them again under another --out, "
            f"because members of one method go by their bundles' names"
        )
    if not set.intersection(*(set(member.precisions) for member in members)):
        have = ", ".join(f"{member.path}: {' '.join(member.precisions)}" for member in members)
        raise UsageError(f"engine fuse: the bundles have no precision in common ({have})")
    weights = options.weights or (1.0,) * len(members)
    if len(weights) != len(members) or min(weights) <= 0:
        raise UsageError(f"engine fuse: expected {len(members)} positive weights, got {weights}")
    return weights


def _names(members: Sequence[Bundle]) -> list[str]:
    """Of the members: the method, or where several are of one method the bundle's name."""
    methods = Counter(member.manifest.method for member in members)
    manifests = [member.manifest for member in members]
    return [m.method if methods[m.method] == 1 else m.name for m in manifests]


def _check_pictures(options: FuseOptions, members: Sequence[Bundle], data: TrainingSet) -> None:
    for member in members:
        trained_on = member.manifest.training
        if trained_on.sha256 != data.record.sha256:
            raise DataError(
                f"{member.path}: was trained on other pictures ({trained_on.n_good} good ones at {trained_on.path}) "
                f"than {options.data} holds ({data.record.n_good}); give the folder that all members were trained on, "
                f"or train this one on it"
            )


def _cost_ms(predict: Predict, member: Bundle) -> float:
    """Of one picture in a batch of eight."""
    images = np.zeros((8, member.sheet.height, member.sheet.width, 3), np.uint8)
    predict(images)
    times = []
    for _ in range(_TIMED):
        start = time.perf_counter()
        predict(images)
        times.append(time.perf_counter() - start)
    return 1e3 * median(times) / len(images)


def _largest(models: Sequence[Model]) -> tuple[int, int]:
    return max((model.bundle.sheet.sizes[0] for model in models), key=lambda size: size[0] * size[1])


def _spread(rows: npt.NDArray[np.intp], most: int) -> list[int]:
    """At most so many of them, evenly spread."""
    return [int(row) for row in rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.intp)]]


def _measured(
    pairs: dict[str, Pairs], calibration: Calibration, costs_ms: Sequence[float]
) -> dict[str, float | int | str | None]:
    """The cascade at its default bound: what it costs and what it changes, on every kind of frame."""
    level = not_good_from(calibration)
    limit: Limit = exit_limit(pairs["good"], level, DEFAULT_BOUND)
    shares: dict[str, Outcome] = {kind: outcome(pairs[kind], limit, level) for kind in KINDS}
    escalated = (1 - DEFECT_SHARE) * (1 - shares["good"].exits) + DEFECT_SHARE * (1 - shares["synthetic"].exits)
    facts: dict[str, float | int | str | None] = {
        "cascade_bound": DEFAULT_BOUND,
        "cascade_how": limit.how,
        "cascade_frames": limit.n,
        "cascade_limit": limit.surprise if np.isfinite(limit.surprise) else None,
        "cascade_mean_cost": 1 + escalated * sum(costs_ms[1:]) / costs_ms[0],
        "full_cost": sum(costs_ms) / costs_ms[0],
    }
    for kind, share in shares.items():
        facts |= {f"{kind}_n": share.n, f"{kind}_exits": share.exits, f"{kind}_disagreement": share.disagreement}
    return facts


def _untimed(ensemble: Ensemble) -> Ensemble:
    """Without what differs from one run to the next."""
    members = tuple(msgspec.structs.replace(member, cost_ms=1.0) for member in ensemble.members)
    return msgspec.structs.replace(ensemble, members=members)


def _manifest(
    options: FuseOptions,
    members: Sequence[Bundle],
    data: TrainingSet,
    found: dict[Precision, tuple[Ensemble, dict[str, float | int | str | None]]],
) -> Manifest:
    ensembles = {precision: ensemble for precision, (ensemble, _) in found.items()}
    largest = max(members, key=lambda member: member.manifest.input.height * member.manifest.input.width).manifest
    return Manifest(
        name=manifests.name_of(options.out),
        version=manifests.version_of({precision: _untimed(each) for precision, each in ensembles.items()}),
        method=METHOD,
        input=Input(height=largest.input.height, width=largest.input.width),
        grid=largest.grid,
        smoothing_sigma_px=0.0,
        executables={},
        training=data.record,
        settings={"rule": options.rule, "members": ",".join(sorted(_names(members)))},
        report=next(iter(found.values()))[1],
        versions=manifests.versions(),
        ensembles=ensembles,
    )
