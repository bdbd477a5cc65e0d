"""DROC from pictures to a bundle: a representation, learnt or taken from another bundle, and a classifier on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine import bundle
from engine.errors import UsageError
from trainers import backbones
from trainers.base import Shared, TrainOptions, TrainReport, Variant
from trainers.droc import saved
from trainers.droc.classifiers import Classifier
from trainers.droc.fit import fit
from trainers.droc.learn import DrocLearner
from trainers.droc.network import ImageNet
from trainers.droc.pictures import patch_features
from trainers.droc.pretext import Representation
from trainers.droc.settings import Settings
from trainers.droc.variants import lines
from trainers.job import Fact, Job
from trainers.learning import learnt
from trainers.learning.checkpoint import Checkpoint
from trainers.learning.learnt import Learnt
from trainers.learning.passes import learn, seeded
from trainers.progress import Progress

_MEAN, _STD = (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)
_STAGE_ONE = ("epochs", "image_size", "patch_size", "network", "backbone", "width", "pretext")
_CURVE = 20  # values of the uniformity in the report


class Droc:
    """The trainer `droc`; other `settings` than the defaults give the rows of the protocols."""

    name = saved.METHOD
    takes = frozenset(
        {
            "backbone",
            "classifier",
            "download_weights",
            "network",
            "patch_size",
            "pretext",
            "representation",
            "width",
        }
    )

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()

    def train(self, options: TrainOptions, progress: Progress) -> TrainReport:
        """See `Trainer.train`; with `options.representation` stage two only."""
        return learnt.train(self, self._decided(options), _learn, options, progress)

    def variants(self, protocol: str) -> Sequence[Variant]:
        """See `Trainer.variants`; equal settings are one trainer, so that it trains once."""
        trainers: dict[Settings, Droc] = {}

        def of(settings: Settings) -> Droc:
            return trainers.setdefault(settings, Droc(settings))

        return [
            Variant(
                line.figure,
                line.label,
                of(line.settings),
                line.copies,
                None if line.learnt_by is None else Shared(of(line.learnt_by), line.learnt_on),
            )
            for line in lines(protocol, self.settings)
        ]

    def _decided(self, options: TrainOptions) -> Settings:
        if options.representation is None:
            return self.settings.with_options(options)
        for name in _STAGE_ONE:
            if getattr(options, name) is not None:
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{flag}: is the representation's ({options.representation}); leave it out")
        made, _ = saved.load_representation(options.representation)
        own = self.settings if options.classifier is None else replace(self.settings, classifier=options.classifier)
        return made.with_stage_two(own)


def _learn(job: Job[Settings]) -> Learnt:
    s, facts = job.settings, dict[str, Fact]()
    used: tuple[Checkpoint, ...] = ()
    if job.options.representation is not None:
        model = saved.load_representation(job.options.representation)[1]
        facts["representation"] = bundle.read(job.options.representation).manifest.model
    elif s.learns:
        used = (replace(job, settings=s.stage_one()).checkpoint(".representation"),)
        model = _learnt(job, used[0], facts)
    else:
        model = _given(job)
    classifier = _fitted(model, job, facts)
    network = saved.detector(model, classifier, s)
    weights = saved.weights(model, classifier)
    return Learnt(network, s.map_sigma_px, facts, used, _MEAN, _STD, weights=weights)


def _learnt(job: Job[Settings], checkpoint: Checkpoint, facts: dict[str, Fact]) -> Representation:
    """f and g through stage one; its loss and the uniformity go into `facts`."""
    s, seed = job.settings, job.options.seed
    with seeded(seed):
        model = saved.make_representation(s, saved.make_trunk(s))
    learner = DrocLearner(model, s, seed, job.progress.say)
    facts["loss"] = learn(learner, job.pictures.learning, checkpoint, job.progress, f"stage one: {s.pretext}")
    every = -(-len(learner.uniformity) // _CURVE)
    facts["mmd"] = learner.uniformity[-1]
    facts["mmd_curve"] = " ".join(f"{value:.4f}" for value in learner.uniformity[::-every][::-1])
    return learner.finish()


def _given(job: Job[Settings]) -> Representation:
    """The baselines, which learn nothing: random weights, or an ImageNet backbone."""
    s = job.settings
    with seeded(job.options.seed):
        trunk = saved.make_trunk(s)
        if isinstance(trunk, ImageNet):
            trunk.backbone = backbones.load(s.backbone, s.patch_px, allow_download=job.options.download_weights)
        return saved.make_representation(s, trunk)


def _fitted(model: Representation, job: Job[Settings], facts: dict[str, Fact]) -> Classifier | None:
    """Stage two; None where the head itself scores."""
    s = job.settings
    if s.classifier == "rotation-softmax":
        return None
    features = patch_features(model.trunk, job.pictures.learning, s.most_features, job.options.seed, job.progress)
    facts["fitted_on"] = len(features)
    job.progress.say(f"stage two: {s.classifier} on {len(features)} features of {features.shape[1]} numbers")
    classifier = fit(s.classifier, features)
    facts["constants"] = sum(value.numel() for value in classifier.buffers())
    return classifier
