"""From pictures to a bundle for methods that learn a network which gives the map itself.

The network takes (N, side, side, 3) uint8 pictures, or tiles of them, and gives the contract's `grid` (N, h, w), no
Gaussian follows; and its `score` (N,) where that is not the maximum of the smooth map.
A fifth of the pictures is held out before anything is learnt, and the thresholds come from these alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from safetensors.torch import save_file
from torch import Tensor, nn

from engine import bundle
from engine.contract import GRID_NAME, SCORE_NAME, Executable, File, Input, Manifest, Precision
from engine.maps import MapHead
from engine.tiling import Layout
from trainers import manifest
from trainers.base import Trainer, TrainOptions, TrainReport, refuse_others
from trainers.calibration import record, reference
from trainers.calibration.holdout import HeldOut, hold_out
from trainers.dataset.good import Selection
from trainers.job import Fact, Job, Settings, read_pictures, read_training
from trainers.learning.checkpoint import Checkpoint
from trainers.learning.passes import torch_threads
from trainers.network.export import export_onnx
from trainers.network.exported import Exported
from trainers.progress import Progress

NETWORK = "network.onnx"
WEIGHTS = "weights.safetensors"
_BATCH = 8

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a method makes of pictures: the network as it is served, how its map is smoothed, and what was measured.

    `mean` and `std` say how the graph normalises 0..255 values, for the record; `checkpoints` are those to remove once
    there is a bundle; `scores` says whether the network gives scores of its own; `weights` are what the method needs to
    make torch modules of the bundle again, if it can.
    """

    network: nn.Module
    smoothing_sigma_px: float
    facts: dict[str, Fact]
    checkpoints: tuple[Checkpoint, ...]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    scores: bool = False
    weights: Mapping[str, Tensor] = field(default_factory=dict)


def train(
    trainer: Trainer, settings: S, learn: Callable[[Job[S]], Learnt], options: TrainOptions, progress: Progress
) -> TrainReport:
    """Learn from `job.pictures.learning`, calibrate on the held-out pictures and write the bundle; see `Trainer.train`.

    Raises DataError where there are too few pictures to hold some out.
    """
    refuse_others(options, trainer)
    started_s = time.perf_counter()
    with bundle.writing(options.out) as folder, torch_threads(options.threads):
        data = read_training(options, progress)
        pictures = read_pictures(options, settings, data, hold_out, progress)
        job = Job(options, settings, data, pictures, progress, started_s)
        learnt = learn(job)
        document = _build(trainer.name, job, learnt, folder)
        bundle.write_manifest(folder, document)
    for checkpoint in learnt.checkpoints:
        checkpoint.remove()
    return job.report(document)


def _build(method: str, job: Job[S], learnt: Learnt, folder: Path) -> Manifest:
    """Write the network file; the manifest is returned."""
    side, path = job.settings.side_px, folder / NETWORK
    job.progress.say("export to ONNX")
    export_onnx(learnt.network, path, side, (GRID_NAME, SCORE_NAME) if learnt.scores else (GRID_NAME,))
    network = Exported(path, job.options.threads)
    layout = job.pictures.layout
    head = _head(network, layout, learnt.smoothing_sigma_px)
    held_out = scored(network, head, job.pictures.held_out, job.progress, layout)
    executable = Executable(
        network=bundle.describe(path, folder),
        calibration=held_out.calibration(1, job.options.target_fpr),
        held_out=record.write(folder, "fp32", held_out, job.held_out_contents),
        reference=reference.write(folder, "fp32", job.pictures, held_out),
    )
    executables: dict[Precision, Executable] = {"fp32": executable}
    return Manifest(
        name=manifest.name_of(job.options.out),
        version=manifest.version_of(executables),
        method=method,
        input=Input(height=head.height, width=head.width, mean=learnt.mean, std=learnt.std),
        grid=head.grid,
        smoothing_sigma_px=learnt.smoothing_sigma_px,
        executables=executables,
        training=job.data.record,
        settings=job.recorded(),
        report=learnt.facts | {"n_learnt": len(job.pictures.training), "n_held_out": len(job.pictures.held_out)},
        versions=manifest.versions(),
        weights=_kept(learnt.weights, folder),
        tiling=None if layout is None else layout.tiling,
    )


def _kept(weights: Mapping[str, Tensor], folder: Path) -> File | None:
    """The weights' file, where there are any."""
    if not weights:
        return None
    path = folder / WEIGHTS
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    return bundle.describe(path, folder)


def _head(network: Exported, layout: Layout | None, sigma_px: float) -> MapHead:
    """What makes maps of the network's grids, or of those of whole pictures that are seen in tiles."""
    rows, columns = network.shapes[0]
    if layout is None:
        return MapHead((rows, columns), network.height, network.width, sigma_px)
    if rows * layout.tiling.cell_px != layout.tiling.side_px:
        raise ValueError(f"expected cells of {layout.tiling.cell_px} px, got a map of {rows} x {columns} of a tile")
    return layout.head(sigma_px)


def scored(
    network: Exported, head: MapHead, pictures: Selection, progress: Progress, layout: Layout | None = None
) -> HeldOut:
    """Held-out pictures as the exported network scores them, in tiles where there is a `layout`."""
    held_out = HeldOut(head)
    size = _BATCH if layout is None else 1
    with progress.task("calibrate", len(pictures)) as task:
        for start in range(0, len(pictures), size):
            images = pictures.take(range(start, min(start + size, len(pictures))))
            held_out.add(*(network(images) if layout is None else layout.look(images, network)))
            task.advance(len(images))
    return held_out
