"""Distances to a smooth map of the picture and its maximum, on a device: maps and scores leave it, features do not.

Letters: N batch, h w grid, H W picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels import _launch
from kernels.cuda.arrays import View, stream_of, view
from kernels.cuda.driver import Device, device_of
from kernels.cuda.map import checked_out
from kernels.errors import ShapeError
from kernels.storage import F32, F64


@dataclass(frozen=True, slots=True)
class Band:
    """A matrix (pixels, cells) whose rows are zero outside `taps` columns from first[row] on."""

    weights: F32  # (pixels, taps)
    first: npt.NDArray[np.int32]  # (pixels,)
    cells: int

    @classmethod
    def of(cls, matrix: F64) -> Band:
        """The band of a matrix; what is cut away is exactly zero."""
        cells = matrix.shape[1]
        used = matrix != 0
        first = np.where(used.any(axis=1), used.argmax(axis=1), 0)
        last = np.where(used.any(axis=1), cells - used[:, ::-1].argmax(axis=1), 1)
        taps = int((last - first).max())
        first = np.minimum(first, cells - taps)
        weights = np.take_along_axis(matrix, first[:, None] + np.arange(taps), axis=1)
        return cls(np.ascontiguousarray(weights, np.float32), first.astype(np.int32), cells)


class MapHead:
    """Maps Y grid X^T and their maxima, for the separable operators Y (H, h) and X (W, w) of upsampling and smoothing.

    Their entries are not negative; engine.maps.operator makes them.
    """

    def __init__(self, rows: F64, columns: F64) -> None:
        if (rows < 0).any() or (columns < 0).any():
            raise ShapeError("operators: expected entries >= 0; the maximum is taken of numbers that are not negative")
        self._rows, self._columns = Band.of(rows), Band.of(columns)
        self._resident: dict[int, tuple[_launch.Axis, _launch.Axis, list[object]]] = {}

    def __call__(self, grids: Any, maps: Any = None, scores: Any = None) -> tuple[Any, Any]:
        """Distances (N, h, w), float32 and >= 0 -> maps (N, H, W) and scores (N,), new PyCUDA arrays if not given.

        A NaN makes the pixels that see it, and the score, NaN.
        """
        stream = stream_of(grids)
        x = view(grids, stream)
        cells = (self._rows.cells, self._columns.cells)
        if x.shape[1:] != cells or x.number != "float32" or not x.contiguous:
            raise ShapeError(
                f"grids: expected C-contiguous float32 (N, h, w), (h, w) = {cells}, got {x.number} {x.shape}"
            )
        device, batch = device_of(x.address), x.shape[0]
        shape = (batch, len(self._rows.first), len(self._columns.first))
        maps = device.empty(shape) if maps is None else maps
        scores = device.empty((batch,)) if scores is None else scores
        self._run(
            device, x, checked_out(view(maps, stream), shape), checked_out(view(scores, stream), (batch,)), stream
        )
        return maps, scores

    def _run(self, device: Device, grids: View, maps: View, scores: View, stream: int) -> None:
        if grids.shape[0] == 0:
            return
        rows, columns, _ = self._axes(device)
        device.zero(scores.address, scores.shape, stream)
        launch = _launch.upsample(grids.address, grids.shape[0], rows, columns, maps.address, scores.address)
        device.launch(launch, stream)

    def _axes(self, device: Device) -> tuple[_launch.Axis, _launch.Axis, list[object]]:
        """The operators on a device, and what owns them there."""
        if device.ordinal not in self._resident:
            owners: list[object] = []
            rows, columns = (_axis(device, band, owners) for band in (self._rows, self._columns))
            self._resident[device.ordinal] = rows, columns, owners
        return self._resident[device.ordinal]


def _axis(device: Device, band: Band, owners: list[object]) -> _launch.Axis:
    weights, weights_owner = device.upload(band.weights)
    first, first_owner = device.upload(band.first)
    owners += [weights_owner, first_owner]
    return weights, first, len(band.first), band.cells, band.weights.shape[1]
