"""A Gaussian's arrays on a device.

Letters: C channels, P = h * w positions, R rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from kernels.cuda.arrays import View, row_major
from kernels.cuda.driver import Device
from kernels.errors import ShapeError
from kernels.gaussian import Gaussian
from kernels.layout import packed_values, row_values
from kernels.storage import Storage

# Loads are of 16 bytes.
_ALIGNMENT = 16


@dataclass(frozen=True, slots=True)
class DeviceGaussian:
    """The arrays of a Gaussian, as `kernels.Gaussian` names them, C-contiguous in memory of one device.

    mean (h, w, C), factor (P, packed values) or (P, R, row values); raises ShapeError when they do not fit each other.
    """

    mean: View
    factor: View
    storage: Storage
    scale: View | None = None
    weights: View | None = None
    tail: View | None = None

    def __post_init__(self) -> None:
        h, w, channels = self.mean.shape if len(self.mean.shape) == 3 else (0, 0, 0)
        _expect("mean", self.mean, "float32", (h, w, channels))
        if self.factor.address % _ALIGNMENT:
            raise ShapeError(f"factor: expected memory on a {_ALIGNMENT}-byte boundary, got {self.factor.address:#x}")
        if self.weights is None:
            _expect("factor", self.factor, self.storage, (h * w, packed_values(channels)))
            return
        rank = self.rank
        _expect("factor", self.factor, self.storage, (h * w, rank, row_values(channels)))
        _expect("scale", self.scale, "float32", (channels,))
        _expect("weights", self.weights, "float32", (h * w, rank))
        _expect("tail", self.tail, "float32", (h * w,))

    @property
    def channels(self) -> int:
        """C."""
        return self.mean.shape[2]

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w)."""
        return self.mean.shape[0], self.mean.shape[1]

    @property
    def rank(self) -> int:
        """R of a low-rank factor, 0 of a triangular one."""
        return 0 if self.weights is None else self.weights.shape[-1]


def upload(model: Gaussian, device: Device) -> DeviceGaussian:
    """The model on a device: copied when it is first used there, and kept as long as `model` lives."""
    copies = _copies.setdefault(model, {})
    if device.ordinal not in copies:
        copies[device.ordinal] = _copy(model, device)
    return copies[device.ordinal]


_copies: WeakKeyDictionary[Gaussian, dict[int, DeviceGaussian]] = WeakKeyDictionary()


def _copy(model: Gaussian, device: Device) -> DeviceGaussian:
    def view(array: npt.NDArray[np.generic], number: str = "float32") -> View:
        address, owner = device.upload(array)
        return View(address, number, array.shape, row_major(array.shape), owner)

    return DeviceGaussian(
        mean=view(model.mean),
        factor=view(model.factor, model.storage),
        storage=model.storage,
        scale=None if model.scale is None else view(model.scale),
        weights=None if model.weights is None else view(model.weights),
        tail=None if model.tail is None else view(model.tail),
    )


def _expect(name: str, array: View | None, number: str, shape: tuple[int, ...]) -> None:
    if array is None:
        raise ShapeError(f"{name}: missing; a low-rank model has scale, weights and tail")
    if array.number != number or array.shape != shape or 0 in shape or not array.contiguous:
        raise ShapeError(
            f"{name}: expected a contiguous {number} array {shape}, got {array.number} {array.shape}; "
            f"take the arrays of a kernels.Gaussian"
        )
