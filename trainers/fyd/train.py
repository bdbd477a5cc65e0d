"""FYD from pictures to a bundle: learn (when asked), export, fit, calibrate, the same again in int8, write."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from engine import bundle
from engine.contract import FEATURES_NAME, POSITIONS_NAME, Calibration, Executable, Input, Manifest, Precision
from trainers import backbones, manifest
from trainers.base import AS_GIVEN, TrainOptions, TrainReport, Variant, refuse_others
from trainers.calibration import record, reference
from trainers.dataset.disturb import CHANGES
from trainers.dataset.tiles import MOST_TILES
from trainers.fyd.learn import learn
from trainers.fyd.model import Network, pick_channels
from trainers.fyd.settings import Settings
from trainers.fyd.variants import tables
from trainers.job import Fact, Job, read_pictures, read_training
from trainers.learning.passes import seeded, torch_threads
from trainers.network import gaussian
from trainers.network.export import export_onnx
from trainers.network.features import Extractor
from trainers.network.gaussian import Fitted, Recipe
from trainers.network.quantise import quantise, samples
from trainers.progress import Progress

NETWORKS: dict[Precision, str] = {"fp32": "network.onnx", "int8": "network.int8.onnx"}
GAUSSIANS: dict[Precision, str] = {"fp32": "gaussian.safetensors", "int8": "gaussian.int8.safetensors"}

FydJob = Job[Settings]


class Fyd:
    """The trainer `fyd`; other `settings` than the defaults give the rows of the ablation protocol."""

    name = "fyd"
    takes = frozenset({"backbone", "channels", "download_weights"})

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()

    def train(self, options: TrainOptions, progress: Progress) -> TrainReport:
        """See `Trainer.train`."""
        refuse_others(options, self)
        started_s = time.perf_counter()
        settings = self.settings.with_options(options)
        with bundle.writing(options.out) as folder:
            data = read_training(options, progress)
            backbone = backbones.load(settings.backbone, settings.side_px, allow_download=options.download_weights)
            network = _network(backbone, settings, options.seed)
            samples_at_most = data.record.n_good if options.tile is None else MOST_TILES
            progress.say(gaussian.check_memory(network.channels, settings.grid, samples_at_most))
            pictures = read_pictures(options, settings, data, gaussian.split, progress)
            this = Job(options, settings, data, pictures, progress, started_s)
            facts = _learnt(this, network)
            document = _build(this, network, folder, facts)
            bundle.write_manifest(folder, document)
        this.checkpoint().remove()
        return this.report(document)

    def variants(self, protocol: str) -> list[Variant]:
        """See `Trainer.variants`."""
        rows = tables(protocol, self.settings)
        trainers = {settings: Fyd(settings) for _, _, settings in rows}
        copies = tuple(CHANGES) if protocol == "disturbed" else (AS_GIVEN,)
        return [Variant(table, label, trainers[settings], copies) for table, label, settings in rows]


def _network(backbone: backbones.Backbone, settings: Settings, seed: int) -> Network:
    with seeded(seed):
        return Network(backbone, settings, pick_channels(backbone, settings.channels, seed))


def _learnt(job: FydJob, network: Network) -> dict[str, Fact]:
    """Train the learnt parts, where there are any."""
    if not job.settings.learns:
        return {}
    with torch_threads(job.options.threads):
        loss = learn(network, job.pictures.learning, job.options.seed, job.checkpoint(), job.progress)
    return {"loss": loss}


def _build(job: FydJob, network: Network, folder: Path, facts: dict[str, Fact]) -> Manifest:
    """Write all files of the bundle but the manifest, which is returned."""
    settings = job.settings
    outputs = (FEATURES_NAME, POSITIONS_NAME) if network.aligns else (FEATURES_NAME,)
    job.progress.say("export to ONNX")
    export_onnx(network, folder / NETWORKS["fp32"], settings.side_px, outputs)
    fitted, executable = _executable(job, folder, "fp32")
    facts |= {
        "gaussian_bytes": fitted.detector.gaussian.nbytes,
        "distance_variance": fitted.distance_variance,
    }
    executables: dict[Precision, Executable] = {"fp32": executable}
    if settings.int8:
        job.progress.say("quantise to int8")
        quantise(folder / NETWORKS["fp32"], folder / NETWORKS["int8"], samples(job.pictures.learning))
        executables["int8"] = _executable(job, folder, "int8")[1]
    backbone, head, layout = network.backbone, fitted.detector.head, job.pictures.layout
    return Manifest(
        name=manifest.name_of(job.options.out),
        version=manifest.version_of(executables),
        method=Fyd.name,
        input=Input(height=head.height, width=head.width, mean=backbone.mean, std=backbone.std),
        grid=head.grid,
        smoothing_sigma_px=settings.smoothing_sigma_px,
        executables=executables,
        training=job.data.record,
        settings=job.recorded(),
        report=facts,
        versions=manifest.versions(),
        tiling=None if layout is None else layout.tiling,
    )


def _executable(job: FydJob, folder: Path, precision: Precision) -> tuple[Fitted, Executable]:
    """Fit and calibrate the Gaussian of one network file and write it."""
    job.progress.say(f"{precision}:")
    extractor = Extractor(folder / NETWORKS[precision], job.options.threads)
    fitted = gaussian.fit(extractor, job.pictures, _recipe(job), job.progress)
    fitted.detector.gaussian.save(folder / GAUSSIANS[precision])
    executable = Executable(
        network=bundle.describe(folder / NETWORKS[precision], folder),
        gaussian=bundle.describe(folder / GAUSSIANS[precision], folder),
        held_out=record.write(folder, precision, fitted.held_out, job.held_out_contents),
        reference=reference.write(folder, precision, job.pictures, fitted.held_out),
        calibration=_with_caveat(fitted.calibration, job),
    )
    return fitted, executable


def _recipe(job: FydJob) -> Recipe:
    """How the Gaussians are fitted and calibrated."""
    s = job.settings
    return Recipe(s.regularisation, s.smoothing_sigma_px, job.options.target_fpr)


def _with_caveat(calibration: Calibration, job: FydJob) -> Calibration:
    """Say where held-out scores are not quite held out: folds refit the Gaussian, not the learnt parts."""
    if not job.settings.learns or len(job.pictures.held_out):
        return calibration
    estimate = calibration.image_estimate
    note = f"{estimate.note}; the learnt parts have seen the held-out pictures"
    return msgspec.structs.replace(calibration, image_estimate=msgspec.structs.replace(estimate, note=note))
