"""Regions of interest: which pixels of a camera's pictures count.

A region is drawn once for each size of picture that arrives, and kept: a frame costs no drawing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from engine.config import LineRegion
from engine.errors import ConfigError, ContractError, DecodeError
from engine.images import read_image
from engine.polygon import Inside, Points, inside
from engine.types import F32, U8

_SIZES = 8  # of pictures that a region is kept drawn for
_WHITE = 128


class View:
    """The part of pictures of one size that counts.

    `pixels` (height, width) says which of the frame's; a cell of a smaller map counts where at least half of it does,
    or where none is covered that far, those that are covered most.
    """

    def __init__(self, pixels: Inside) -> None:
        self.pixels = pixels
        self.outside = ~pixels
        self._bars = lru_cache(maxsize=2)(self._bar)

    def peak(self, raw_map: F32) -> float:
        """The highest value of a raw map (h, w), of whatever size, among the cells that count; NaN where any is NaN."""
        return float((raw_map + self._bars(raw_map.shape)).max())

    def cells(self, size: tuple[int, int]) -> Inside:
        """(h, w) the cells of a map that count."""
        height, width = size
        share = cv2.resize(self.pixels.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        found: Inside = share >= min(0.5, float(share.max()))
        return found

    def _bar(self, size: tuple[int, int]) -> F32:
        """(h, w) to be added to a map: minus infinity where nothing counts. One addition is faster than a selection."""
        return np.where(self.cells(size), np.float32(0), np.float32(-np.inf))


class Drawing:
    """One region; raises ConfigError where its mask is no picture."""

    def __init__(self, region: LineRegion) -> None:
        self._region = region
        self._mask = None if region.mask is None else _read_mask(Path(region.mask))
        self.view = lru_cache(maxsize=_SIZES)(self._view)

    def _view(self, size: tuple[int, int]) -> View:
        """The region in pictures of a (height, width) px; raises ContractError where it is not in them."""
        region = self._region
        pixels = np.ones(size, np.bool_) if not region.include else np.zeros(size, np.bool_)
        for polygon in region.include:
            pixels |= self._inside(polygon, size)
        for polygon in region.ignore:
            pixels &= ~self._inside(polygon, size)
        if self._mask is not None:
            pixels &= _stretched(self._mask, size)
        if not pixels.any():
            raise ContractError(
                f"picture: {size[0]} x {size[1]} px; its region of interest leaves nothing of it; mend line.region"
            )
        return View(pixels)

    def _inside(self, polygon: Points, size: tuple[int, int]) -> Inside:
        corners = np.asarray(polygon, np.float64)
        height, width = size
        if self._region.unit == "share":
            return inside(corners * (width, height), size)
        x, y = corners.max(axis=0)
        if x > width or y > height:
            raise ContractError(
                f"picture: {height} x {width} px, but a polygon of its region of interest reaches to x = {x:g}, "
                f"y = {y:g}; draw line.region for this size, or use unit = 'share'"
            )
        return inside(corners, size)


class Interest:
    """The regions of a line: a camera's own one, or the line's for cameras that have none."""

    def __init__(self, regions: Sequence[LineRegion]) -> None:
        self._drawings = {region.camera: Drawing(region) for region in regions}

    def view(self, camera: str, size: tuple[int, int]) -> View | None:
        """What counts of a camera's picture of a (height, width) px; None: all of it.

        Raises ContractError where the region is not in pictures of this size.
        """
        drawing = self._drawings.get(camera, self._drawings.get(None))
        return None if drawing is None else drawing.view(size)


def _read_mask(path: Path) -> U8:
    """(H, W) brightness of a picture."""
    try:
        return np.asarray(read_image(path).max(axis=2), np.uint8)
    except OSError as error:
        raise ConfigError(f"line.region.mask: {os.fspath(path)} cannot be read ({error.strerror})") from None
    except DecodeError as error:
        raise ConfigError(f"line.region.mask: {os.fspath(path)}: {error}") from None


def _stretched(mask: U8, size: tuple[int, int]) -> Inside:
    white: Inside = cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT) >= _WHITE
    return white
