"""IGD from pictures to a bundle: the global model of whole pictures, the local one of patches, fused."""

from __future__ import annotations

from dataclasses import dataclass

from trainers import backbones
from trainers.base import TrainOptions, TrainReport, Variant
from trainers.dataset.resized import Resized
from trainers.igd.decoder import Critic
from trainers.igd.detector import Fused
from trainers.igd.encoder import FEATURES, BackboneTrunk, ResidualTrunk, Trunk
from trainers.igd.learn import DescriptorLearner, Plan, trunk_features
from trainers.igd.model import Descriptor
from trainers.igd.patches import PATCH_PX
from trainers.igd.pictures import patches
from trainers.igd.pretrain import Contrast, Distillation, PretrainingLearner
from trainers.igd.settings import Settings
from trainers.igd.variants import tables
from trainers.job import Fact, Job
from trainers.learning import learnt
from trainers.learning.checkpoint import Checkpoint
from trainers.learning.learnt import Learnt
from trainers.learning.passes import learn, seeded
from trainers.progress import Progress

_MEAN, _STD = (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)


class Igd:
    """The trainer `igd`; other `settings` than the defaults give the rows of the ablation protocol."""

    name = "igd"
    takes = frozenset({"backbone", "download_weights", "encoder", "width"})

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()

    def train(self, options: TrainOptions, progress: Progress) -> TrainReport:
        """See `Trainer.train`."""
        return learnt.train(self, self.settings.with_options(options), _learn, options, progress)

    def variants(self, protocol: str) -> list[Variant]:
        """See `Trainer.variants`."""
        return [Variant(row.table, row.label, Igd(row.settings), row.copies) for row in tables(protocol, self.settings)]


@dataclass(frozen=True, slots=True)
class Member:
    """One of the two models to be: what it learns from, and how long."""

    name: str
    pictures: Resized
    side_px: int
    plan: Plan
    pretraining_epochs: int


def _learn(job: Job[Settings]) -> Learnt:
    s, training = job.settings, job.pictures.learning
    facts: dict[str, Fact] = {}
    used: list[Checkpoint] = []
    whole_plan = Plan(s.epochs, s.batch, s.e_step_period)
    whole = _trained(Member("global", training, s.side_px, whole_plan, s.encoder_epochs), job, facts, used)
    local = None
    if s.local:
        cuts = patches(training, s.side_px, s.patches, job.options.seed)
        plan = Plan(s.passes(s.epochs), s.local_batch, s.passes(s.e_step_period))
        local = _trained(Member("local", cuts, PATCH_PX, plan, s.local_encoder_epochs), job, facts, used)
        facts["patches"] = len(cuts)
    network = Fused(whole, local, s.side_px)
    return Learnt(network, s.smoothing_sigma_px, facts, tuple(used), scores=True, mean=_MEAN, std=_STD)


def _trained(member: Member, job: Job[Settings], facts: dict[str, Fact], used: list[Checkpoint]) -> Descriptor:
    """A model through pretraining, where there is any, and EM; what was measured goes into `facts`."""
    settings, seed = job.settings, job.options.seed
    with seeded(seed):
        trunk = _trunk(member, job, facts, used)
        model = Descriptor(trunk, member.side_px, settings.channel_share, settings.objective)
        critic = Critic(member.side_px, settings.channel_share)
    features = None if settings.encoder == "scratch" else trunk_features(trunk, member.pictures)
    learner = DescriptorLearner(model, critic, features, settings, member.plan, seed)
    used.append(job.checkpoint(f".{member.name}"))
    facts[f"loss_{member.name}"] = learn(learner, member.pictures, used[-1], job.progress, f"{member.name} model")
    facts[f"sigma_{member.name}"] = float(model.sigma)
    return learner.finish()


def _trunk(member: Member, job: Job[Settings], facts: dict[str, Fact], used: list[Checkpoint]) -> Trunk:
    """The trunk that the settings ask for, taught where it is to be taught before; how well goes into `facts`."""
    settings, side, width = job.settings, member.side_px, job.settings.channel_share
    if settings.encoder == "scratch":
        return ResidualTrunk(side, width, FEATURES)
    if settings.encoder == "self-supervised":
        trunk = ResidualTrunk(side, width, FEATURES)
        return _pretrained(trunk, Contrast(trunk), member, job, facts, used)
    backbone = backbones.load(settings.backbone, side, allow_download=job.options.download_weights)
    teacher = BackboneTrunk(backbone, side)
    if settings.encoder == "imagenet":
        return teacher
    trunk = ResidualTrunk(side, width, teacher.features)
    task = Distillation(trunk, trunk_features(teacher, member.pictures))
    return _pretrained(trunk, task, member, job, facts, used)


def _pretrained(
    trunk: Trunk,
    task: Contrast | Distillation,
    member: Member,
    job: Job[Settings],
    facts: dict[str, Fact],
    used: list[Checkpoint],
) -> Trunk:
    learner = PretrainingLearner(task, member.pretraining_epochs, job.options.seed)
    used.append(job.checkpoint(f".{member.name}-{job.settings.encoder}"))
    name = f"{member.name} encoder"
    facts[f"loss_{member.name}_encoder"] = learn(learner, member.pictures, used[-1], job.progress, name)
    return trunk
