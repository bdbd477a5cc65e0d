"""SSAE from pictures to a bundle: learn by one objective or by both, and what the two have in common as a detector."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from engine.maps import MapHead
from trainers.base import Objective, TrainOptions, TrainReport, Variant
from trainers.calibration.holdout import BLOCKS
from trainers.dataset.good import blocks
from trainers.dataset.resized import Resized
from trainers.job import Fact, Job
from trainers.learning import learnt
from trainers.learning.learnt import Learnt
from trainers.learning.passes import learn, seeded
from trainers.progress import Progress
from trainers.ssae.learn import SsaeLearner
from trainers.ssae.model import Autoencoder, ErrorMap, FusedMap
from trainers.ssae.objective import Equation
from trainers.ssae.separation import Separation
from trainers.ssae.settings import Settings

_BATCH = 8
_SCALED_BY = 64  # training pictures that the scales of fused maps rest on
_EQUATIONS: dict[Objective, tuple[Equation, ...]] = {"1": (1,), "2": (2,), "both": (1, 2)}
_ROWS: dict[Objective, str] = {"1": "objective (1)", "2": "objective (2)", "both": "both"}
_MEAN, _STD = (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)


class Ssae:
    """The trainer `ssae`; other `settings` than the defaults give the rows of the ablation protocol."""

    name = "ssae"
    takes = frozenset({"augmentation", "objective", "width"})

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()

    def train(self, options: TrainOptions, progress: Progress) -> TrainReport:
        """See `Trainer.train`."""
        return learnt.train(self, self.settings.with_options(options), _learn, options, progress)

    def variants(self, protocol: str) -> list[Variant]:
        """Table 4, and the ensemble that the paper ends with."""
        if protocol != "ablation":
            return []
        rows = [(label, replace(self.settings, objective=name)) for name, label in _ROWS.items()]
        return [Variant("Table 4", label, Ssae(settings)) for label, settings in rows]


def _learn(job: Job[Settings]) -> Learnt:
    equations = _EQUATIONS[job.settings.objective]
    facts: dict[str, Fact] = {}
    maps = [ErrorMap(_trained(equation, job, facts)) for equation in equations]
    network = maps[0] if len(maps) == 1 else FusedMap(maps, [_peak(m, job) for m in maps])
    checkpoints = tuple(job.checkpoint(_part(equation)) for equation in equations)
    return Learnt(network, job.settings.smoothing_sigma_px, facts, checkpoints, _MEAN, _STD)


def _trained(equation: Equation, job: Job[Settings], facts: dict[str, Fact]) -> Autoencoder:
    """F trained by one objective; its loss and, for objective 2, where it stopped go into `facts`."""
    seed, settings, pictures = job.options.seed, job.settings, job.pictures.learning
    with seeded(seed):
        network = Autoencoder(settings.channel_share)
    separation = None
    if equation == 2:
        pictures, apart = _apart(pictures)
        separation = Separation(apart, settings.corruption, seed)
    learner = SsaeLearner(network, equation, settings, seed, separation)
    checkpoint = job.checkpoint(_part(equation))
    facts[f"loss_{equation}"] = learn(learner, pictures, checkpoint, job.progress, f"objective {equation}")
    if learner.separations:
        facts |= {"best_epoch_2": learner.best_epoch, "separation_2": max(learner.separations)}
    return learner.finish()


def _apart(pictures: Resized) -> tuple[Resized, Resized]:
    """Pictures to train on, and a block of neighbours apart by which objective 2 stops."""
    parts = blocks(len(pictures), min(BLOCKS, len(pictures)))
    middle = parts.pop(len(parts) // 2)
    return pictures.subset(np.concatenate(parts)), pictures.subset(middle)


def _peak(error: ErrorMap, job: Job[Settings]) -> float:
    """The mean highest value of the smoothed maps of training pictures: what makes members of a fusion alike."""
    pictures, side = job.pictures.learning, job.settings.side_px
    head = MapHead((side, side), side, side, job.settings.smoothing_sigma_px)
    rows = np.linspace(0, len(pictures) - 1, min(_SCALED_BY, len(pictures))).round().astype(np.intp)
    with torch.no_grad():
        parts = np.array_split(rows, -(-len(rows) // _BATCH))
        scores = [head(error(torch.from_numpy(pictures.take(part))).numpy())[0] for part in parts]
    return float(np.concatenate(scores).mean())


def _part(equation: Equation) -> str:
    """What a checkpoint's name adds to the bundle's."""
    return f".objective{equation}"
