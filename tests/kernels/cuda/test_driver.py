"""A machine without a device says what is missing; and what `kernels` checks before a device is needed."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

import kernels
from kernels.cuda.arrays import View
from kernels.cuda.map import checked_features, checked_out
from kernels.cuda.model import DeviceGaussian


class OnDevice:
    """Features that claim to lie on a device."""

    def __init__(self, shape, typestr="<f4"):
        self.__cuda_array_interface__ = {"version": 3, "data": (4096, False), "shape": shape, "typestr": typestr}


def has_driver():
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.fixture
def model(world):
    return kernels.fit(world(6).train, 0.5)


@pytest.mark.skipif(has_driver(), reason="this machine has a CUDA driver")
def test_a_missing_driver_is_named(model):
    said = "CUDA: (pycuda is not installed; pip install|no driver on this machine).*pass NumPy arrays for the CPU"
    with pytest.raises(kernels.KernelError, match=said):
        kernels.mahalanobis_map(OnDevice((2, 6, 3, 5)), model)


@pytest.mark.parametrize(
    ("shape", "typestr", "said"),
    [
        ((2, 5, 3, 5), "<f4", r"expected \(N, C, h, w\) with \(C, h, w\) = \(6, 3, 5\), got \(2, 5, 3, 5\)"),
        ((6, 3, 5), "<f4", r"got \(6, 3, 5\)"),
        ((2, 6, 3, 5), "<f8", "expected float32, float16 or bfloat16, got float64"),
        ((2, 6, 3, 5), "<u2", "got uint16"),
    ],
)
def test_wrong_features_are_refused_before_the_driver_is_opened(model, shape, typestr, said):
    with pytest.raises(kernels.ShapeError, match=said):
        kernels.mahalanobis_map(OnDevice(shape, typestr), model)


def view(shape, number="float32", address=4096):
    steps = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    return View(address, number, shape, steps, None)


def test_wrong_outputs_are_refused():
    assert checked_out(view((2, 3, 5)), (2, 3, 5)).shape == (2, 3, 5)
    for wrong in (view((2, 3, 4)), view((2, 3, 5), "float16"), View(4096, "float32", (2, 3, 5), (15, 1, 3), None)):
        with pytest.raises(kernels.ShapeError, match=r"out: expected a C-contiguous float32 array \(2, 3, 5\)"):
            checked_out(wrong, (2, 3, 5))


def test_more_channels_than_the_kernels_take_are_refused():
    with pytest.raises(kernels.ShapeError, match="at most 2048 channels on a device, got 2049"):
        checked_features(view((1, 2049, 1, 1)), 2049, (1, 1))


def test_arrays_of_a_model_that_do_not_fit_are_refused():
    low_rank = {"scale": view((6,)), "weights": view((15, 2)), "tail": view((15,))}
    good = DeviceGaussian(view((3, 5, 6)), view((15, 2, 8), "float16"), "float16", **low_rank)
    assert (good.channels, good.grid, good.rank) == (6, (3, 5), 2)
    triangular = DeviceGaussian(view((3, 5, 6)), view((15, kernels.model_bytes(6, 1, 99) // 4 - 6)), "float32")
    assert triangular.rank == 0
    with pytest.raises(kernels.ShapeError, match="factor: expected a contiguous float32 array"):
        DeviceGaussian(view((3, 5, 6)), view((15, 21)), "float32")
    with pytest.raises(kernels.ShapeError, match="factor: expected memory on a 16-byte boundary"):
        DeviceGaussian(view((3, 5, 6)), view((15, 48), address=4100), "float32")
    with pytest.raises(kernels.ShapeError, match="tail: missing; a low-rank model has scale, weights and tail"):
        DeviceGaussian(view((3, 5, 6)), view((15, 2, 8)), "float32", **(low_rank | {"tail": None}))
    with pytest.raises(kernels.ShapeError, match="mean: expected a contiguous float32 array"):
        DeviceGaussian(view((3, 6)), view((15, 2, 8)), "float32")
