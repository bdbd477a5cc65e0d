"""`engine fuse`: bundles trained on the same pictures become one, calibrated together.

What the members say of good pictures comes from their records (`trainers.calibration.record`,
`trainers.ensemble.joint`), and what they say of defects from held-out pictures with a synthetic defect each, by models
that have not seen them (`trainers.ensemble.copies`), and from the dataset's own defective pictures where it has any.
The synthetic ones give the members' weights (`trainers.ensemble.weights`): the best rule by a criterion without test
labels (docs/results.md). Labelled ones decide nothing; they show what the cascade would miss.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
from safetensors.numpy import save_file

from engine import bundle as bundles
from engine.bundle import Bundle
from engine.cascade import (
    DEFAULT_BOUND,
    DEFECT_SHARE,
    KINDS,
    MADE_UP,
    Limit,
    Mixture,
    Outcome,
    Pairs,
    exit_limit,
    outcome,
)
from engine.contract import MANIFEST_NAME, Calibration, Ensemble, File, Input, Manifest, Member, Precision, Rule
from engine.types import F64, U8
from trainers import manifest as manifests
from trainers.base import DEFAULT_TARGET_FPR, TrainReport
from trainers.calibration import record
from trainers.dataset.good import Dataset, Pictures, TrainingSet, check_training, read_dataset
from trainers.ensemble import common, membership
from trainers.ensemble.copies import Predict, Served, evenly, judged
from trainers.ensemble.joint import Fused, How, Joint, Scales, fuse_jointly, join
from trainers.ensemble.weights import weights
from trainers.progress import Progress

METHOD = "ensemble"
_SYNTHETIC = 25  # pictures at most, each with every kind of defect
_LABELLED = 400  # at most, evenly spread
_TIMED = 5

OpenMember = Callable[[Bundle, Precision], AbstractContextManager[Predict]]


@dataclass(frozen=True, slots=True)
class FuseOptions:
    """What `engine fuse` was asked for; `data` is the folder that all `members` were trained on.

    `weights` of the mean, one a member; None: by how well each finds synthetic defects. `review_fpr` sets the second,
    lower threshold by the share of good pictures that may reach it; None: there is none.
    """

    members: tuple[Path, ...]
    data: Path
    out: Path
    target_fpr: float = DEFAULT_TARGET_FPR
    review_fpr: float | None = None
    rule: Rule = "mean"
    weights: tuple[float, ...] | None = None
    threads: int = 0  # of what is fitted again; 0: all cores


@dataclass(frozen=True, slots=True)
class Model:
    """A member to be: its name in the ensemble, its bundle, what runs it and what a picture costs.

    `weight` is the one asked for, None: to be found.
    """

    name: str
    bundle: Bundle
    weight: float | None
    predict: Predict
    cost_ms: float


def fuse(options: FuseOptions, open_member: OpenMember, progress: Progress) -> TrainReport:
    """Fuse bundles into `options.out`.

    Raises UsageError (or a kind of it) where bundles cannot be fused, were trained on other pictures than `data`, or
    have no record of held-out scores.
    """
    started_s = time.perf_counter()
    members = [bundles.read(path) for path in options.members]
    names = membership.names(members)
    membership.check(members, options.weights)
    dataset = read_dataset(options.data)
    data = check_training(dataset)
    membership.check_pictures(members, options.data, data)
    precisions = membership.precisions(members)
    with bundles.writing(options.out) as folder:
        asked = options.weights or (None,) * len(members)
        named = list(zip(names, members, asked, strict=True))
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
                fusing = _Fusing(options, models, precision, dataset, data, open_member, progress)
                found[precision] = fusing.run(folder)
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
    open_member: OpenMember
    progress: Progress

    def run(self, folder: Path) -> tuple[Ensemble, dict[str, float | int | str | None]]:
        """Write the frames' file, and networks that go on from one another; the ensemble and what was measured."""
        records = [record.read(model.bundle, self.precision) for model in self.models]
        joint = join([model.name for model in self.models], records)
        copies = self._copies(joint)
        how = How(self.options.rule, self._weights(joint, copies), _largest(self.models))
        folds = max(model.bundle.calibration(self.precision).image_estimate.folds for model in self.models)
        fused = fuse_jointly(joint, how, folds, self.options.target_fpr)
        calibration = self._with_review(fused)
        pairs = {
            "good": fused.good,
            "synthetic": _pairs(copies.reshape(len(self.models), -1), fused.scales, how),
            "labelled": _pairs(self._labelled(), fused.scales, how),
        }
        path = folder / f"frames.{self.precision}.safetensors"
        frames = pairs | {MADE_UP: fused.levels.made_up}
        save_file({f"{k}.{f}": getattr(each, f) for k, each in frames.items() for f in ("first", "fused")}, path)
        members = self._members(folder, fused.scales, how)
        ensemble = Ensemble(members, how.rule, calibration, bundles.describe(path, folder))
        ensemble = msgspec.structs.replace(ensemble, rest_ms=self._rest_ms(folder, ensemble))
        return ensemble, _measured(frames, how.mixture, ensemble)

    def _members(self, folder: Path, scales: Scales, how: How) -> tuple[Member, ...]:
        networks = self._networks(folder)
        return tuple(
            Member(
                name=model.name,
                manifest=bundles.describe(folder / "members" / model.name / MANIFEST_NAME, folder),
                image=scales.image[i],
                pixel=scales.pixel[i],
                weight=how.weights[i],
                cost_ms=model.cost_ms,
                network=networks.get(model.name),
            )
            for i, model in enumerate(self.models)
        )

    def _networks(self, folder: Path) -> dict[str, File]:
        """What members run in the place of their own networks, where these begin alike; of tiles each sees its own."""
        whole = [model for model in self.models if not model.bundle.tiled]
        own = {m.name: m.bundle.file(m.bundle.executable(self.precision).network) for m in whole}
        try:
            return common.write(folder, own, self.precision)
        except ValueError as error:
            self.progress.say(f"{self.precision}: each member runs its whole network: {error}")
            return {}

    def _rest_ms(self, folder: Path, ensemble: Ensemble) -> float:
        """What the members after the first add to a picture."""
        if all(member.network is None for member in ensemble.members):
            return sum(model.cost_ms for model in self.models[1:])
        bundles_of = {model.name: model.bundle for model in self.models}
        document = _manifest(self.options, list(bundles_of.values()), self.data, {self.precision: (ensemble, {})})
        whole = Bundle(folder, document, bundles_of)
        with self.open_member(whole, self.precision) as predict:
            return max(0.0, _cost_ms(predict, whole) - self.models[0].cost_ms)

    def _with_review(self, fused: Fused) -> Calibration:
        rate = self.options.review_fpr
        if rate is None:
            return fused.calibration
        level = fused.levels(fused.good.fused, rate, fused.calibration.image_estimate.folds)[0]
        return msgspec.structs.replace(fused.calibration, review=float(np.nextafter(level, np.inf)))

    def _copies(self, joint: Joint) -> F64:
        """(M, k, d) raw scores of some held-out pictures with every kind of defect."""
        rows = evenly(self.data.rows_of(joint.contents), _SYNTHETIC)
        served = [Served(model.bundle, self.precision, model.predict) for model in self.models]
        return judged(served, self.data, rows, self.options.threads, self.progress)

    def _weights(self, joint: Joint, copies: F64) -> tuple[float, ...]:
        asked = [model.weight for model in self.models if model.weight is not None]
        return tuple(asked) or weights(joint.scores, copies)

    def _labelled(self) -> F64:
        """(M, n) raw scores of the dataset's defective pictures."""
        defective = [item for item in self.dataset.test if item.defect is not None]
        pictures = Pictures([defective[i] for i in evenly(np.arange(len(defective)), _LABELLED)])
        return self._scores("labelled defects", (pictures[i] for i in range(len(pictures))), len(pictures))

    def _scores(self, what: str, images: Iterator[U8], n: int) -> F64:
        """(M, n) raw scores of pictures as they are served."""
        scores = np.zeros((len(self.models), n))
        with self.progress.task(f"{self.precision}: {what}", n) as task:
            for i, image in enumerate(images):
                for m, model in enumerate(self.models):
                    scores[m, i] = model.predict(model.bundle.sheet.fit(image)[None]).scores[0]
                task.advance()
        return scores


def _pairs(raw: F64, scales: Scales, how: How) -> Pairs:
    """(M, n) raw scores -> the first member's surprise and the fused one."""
    surprises = [tail.of(scores) for tail, scores in zip(scales.image, raw, strict=True)]
    return how.mixture.pairs(surprises)


def _cost_ms(predict: Predict, member: Bundle) -> float:
    """Of one picture in a batch of eight; the tiles of a tiled one are a batch already."""
    images = np.zeros((1 if member.tiled else 8, member.sheet.height, member.sheet.width, 3), np.uint8)
    predict(images)
    times = []
    for _ in range(_TIMED):
        start = time.perf_counter()
        predict(images)
        times.append(time.perf_counter() - start)
    return 1e3 * median(times) / len(images)


def _largest(models: Sequence[Model]) -> tuple[int, int]:
    return max((model.bundle.sheet.sizes[0] for model in models), key=lambda size: size[0] * size[1])


def _measured(frames: dict[str, Pairs], mixture: Mixture, ensemble: Ensemble) -> dict[str, float | int | str | None]:
    """The cascade at its default bound: what it costs and what it changes, on every kind of frame."""
    level, rest = ensemble.calibration.not_good_from, ensemble.others_ms / ensemble.first_ms
    limit: Limit = exit_limit(frames, mixture, level, DEFAULT_BOUND)
    shares: dict[str, Outcome] = {kind: outcome(frames[kind], limit, level) for kind in KINDS}
    escalated = (1 - DEFECT_SHARE) * (1 - shares["good"].exits) + DEFECT_SHARE * (1 - shares["synthetic"].exits)
    facts: dict[str, float | int | str | None] = {
        "cascade_bound": DEFAULT_BOUND,
        "cascade_how": limit.how,
        "cascade_frames": limit.n,
        "cascade_limit": limit.surprise if np.isfinite(limit.surprise) else None,
        "cascade_mean_cost": 1 + escalated * rest,
        "full_cost": 1 + rest,
    }
    for kind, share in shares.items():
        facts |= {f"{kind}_n": share.n, f"{kind}_exits": share.exits, f"{kind}_disagreement": share.disagreement}
    return facts


def _untimed(ensemble: Ensemble) -> Ensemble:
    """Without what differs from one run to the next."""
    members = tuple(msgspec.structs.replace(member, cost_ms=1.0) for member in ensemble.members)
    return msgspec.structs.replace(ensemble, members=members, rest_ms=None)


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
        settings={"rule": options.rule, "members": ",".join(sorted(membership.names(members)))},
        report=next(iter(found.values()))[1],
        versions=manifests.versions(),
        ensembles=ensembles,
    )
