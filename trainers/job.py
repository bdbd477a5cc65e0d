"""One training under way, the same for every method: what was asked for, what it works on, where it shows itself."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from engine.contract import MAX_SIDE_PX, Manifest, Tiling
from engine.errors import UsageError
from engine.tiling import Layout
from trainers import manifest
from trainers.base import DEFAULT_OVERLAP, TrainOptions, TrainReport
from trainers.calibration.holdout import Split, read_split
from trainers.dataset.good import Selection, TrainingSet, check_training, read_dataset
from trainers.dataset.tiles import MOST_TILES
from trainers.learning.checkpoint import Checkpoint
from trainers.progress import Progress

Fact = float | int | str | bool | None


class Settings(Protocol):
    """What can be set in a method."""

    @property
    def side_px(self) -> int:
        """Side of the network's square input."""

    @property
    def cell_px(self) -> int:
        """Side of a cell of its map, of that input's pixels; it divides `side_px`."""

    def record(self) -> dict[str, Fact]:
        """Plain values for the manifest."""


S = TypeVar("S", bound=Settings)


def changed(settings: S, given: Mapping[str, object]) -> S:
    """Settings, a dataclass, with the values that were given; None leaves one as it is."""
    return replace(settings, **{key: value for key, value in given.items() if value is not None})  # type: ignore[type-var]


def plain(values: Mapping[str, Any]) -> dict[str, Fact]:
    """Settings' values as a manifest keeps them: lists are joined by commas."""
    return {key: ",".join(map(str, v)) if isinstance(v, tuple) else v for key, v in values.items()}


@dataclass(frozen=True, slots=True)
class Job(Generic[S]):
    """See the module; `started_s` is of `time.perf_counter`."""

    options: TrainOptions
    settings: S
    data: TrainingSet
    pictures: Split
    progress: Progress
    started_s: float

    @property
    def held_out_contents(self) -> list[str]:
        """SHA-256 of the pictures that calibration rests on, in order: all of them where it is by folds."""
        held_out = self.pictures.held_out if len(self.pictures.held_out) else self.pictures.training
        return [self.data.contents[row] for row in held_out.rows]

    def recorded(self) -> dict[str, Fact]:
        """The settings as the manifest has them."""
        return self.settings.record() | {"seed": self.options.seed} | _tiling(self.options)

    def checkpoint(self, part: str = "") -> Checkpoint:
        """The checkpoint that only the same training of this part on the same pictures may go on from."""
        parts = [self.recorded(), self.data.record.sha256, manifest.versions()]
        fingerprint = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        out = self.options.out.resolve()
        return Checkpoint.beside(out.with_name(out.name + part), fingerprint)

    def report(self, document: Manifest) -> TrainReport:
        """What training made, now that it is done."""
        calibrations = {name: executable.calibration for name, executable in document.executables.items()}
        seconds = time.perf_counter() - self.started_s
        out, method = self.options.out, document.method
        return TrainReport(out, method, document.version, seconds, calibrations, document.report)


def read_pictures(
    options: TrainOptions,
    settings: Settings,
    data: TrainingSet,
    split: Callable[[Selection], Split],
    progress: Progress,
) -> Split:
    """The checked pictures at the size that the model takes, split; where there is a `--tile` with tiles of them.

    Raises UsageError where the pictures cannot be cut as was asked for.
    """
    layout = _layout(options, settings, data)
    if layout is None:
        return read_split(data, settings.side_px, split, options.seed, progress)

    def told(pictures: Selection) -> Split:
        parts = split(pictures)
        progress.say(
            f"tiles: {len(layout)} of {settings.side_px} px in a picture of {layout.width} x {layout.height} px, "
            f"{len(parts.training) * len(layout)} to learn from (at most {MOST_TILES} are taken)"
        )
        return parts

    return read_split(data, layout, told, options.seed, progress)


def _layout(options: TrainOptions, settings: Settings, data: TrainingSet) -> Layout | None:
    """How pictures of the commonest size are cut, at the scale at which a tile is as large as the network's input."""
    if options.tile is None:
        if options.overlap is not None:
            raise UsageError("--overlap: is of tiles; give --tile PX too")
        return None
    scale = settings.side_px / options.tile
    height, width = (round(side * scale) for side in data.size)
    shown = f"--tile {options.tile}: the pictures of {data.size[1]} x {data.size[0]} px"
    if max(height, width) <= settings.side_px:
        raise UsageError(f"{shown} fit into one tile; train without --tile")
    if max(height, width) > MAX_SIDE_PX:
        raise UsageError(f"{shown} would be {width} x {height} px at this scale, the most is {MAX_SIDE_PX} a side")
    overlap = DEFAULT_OVERLAP if options.overlap is None else options.overlap
    try:
        return Layout(height, width, Tiling(settings.side_px, settings.cell_px, overlap))
    except ValueError:
        raise UsageError(
            f"--tile {options.tile}: the map of a tile has {settings.side_px // settings.cell_px} cells a side, too "
            f"few for an overlap of {overlap:g}; choose another --tile or a method that gives a map"
        ) from None


def _tiling(options: TrainOptions) -> dict[str, Fact]:
    """What was asked for of tiles, for the record; nothing without."""
    if options.tile is None:
        return {}
    return {"tile_px": options.tile, "tile_overlap": DEFAULT_OVERLAP if options.overlap is None else options.overlap}


def read_training(options: TrainOptions, progress: Progress) -> TrainingSet:
    """The good pictures of `options.data`, checked; says what is worth knowing of them."""
    data = check_training(read_dataset(options.data))
    for warning in data.warnings:
        progress.say(warning)
    return data
