"""Pointers of other libraries' arrays: what NumPy and torch export, and interfaces as the protocol defines them."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import kernels
from kernels.cuda import arrays


class Exported:
    """An object with the CUDA array interface, as version 3 of the protocol describes it."""

    def __init__(self, **interface):
        self.__cuda_array_interface__ = {"version": 3, "data": (4096, False)} | interface


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        np.arange(24, dtype=np.float16).reshape(2, 3, 4)[:, ::2, 1:],
        np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)[::-1],
        np.empty((0, 3), np.float32),
    ],
)
def test_dlpack_gives_the_memory_itself(array):
    view = arrays.from_dlpack(array, None)
    assert (view.shape, view.number) == (array.shape, array.dtype.name)
    if array.size:
        assert view.address == array.ctypes.data
        assert view.strides == tuple(step // array.itemsize for step in array.strides)
    assert view.contiguous == array.flags.c_contiguous


def test_dlpack_keeps_the_memory_until_the_view_goes():
    array = np.full(1000, 7, np.float32)
    before = sys.getrefcount(array)
    view = arrays.from_dlpack(array, None)
    assert sys.getrefcount(array) == before + 1
    del view
    assert sys.getrefcount(array) == before


def test_bfloat16_through_dlpack():
    tensor = torch.ones(3, 4, dtype=torch.bfloat16)[:, 1:]
    view = arrays.from_dlpack(tensor, None)
    assert (view.number, view.shape, view.strides) == ("bfloat16", (3, 3), (4, 1))
    assert view.address == tensor.data_ptr()


def test_numbers_that_no_kernel_reads_are_named():
    assert arrays.from_dlpack(np.zeros(3), None).number == "DLPack type 2 of 64 bits"


def test_what_cannot_be_exported_is_refused():
    with pytest.raises(kernels.KernelError, match="array: cannot be exported"):
        arrays.from_dlpack(torch.ones(2, requires_grad=True), None)


def test_the_interface_gives_strides_in_elements():
    view = arrays.view(Exported(typestr="<f2", shape=(2, 3), strides=(12, 2)), 1)
    assert (view.address, view.number, view.strides, view.contiguous) == (4096, "float16", (6, 1), False)
    view = arrays.view(Exported(typestr="<f4", shape=(2, 3), strides=None), 1)
    assert (view.strides, view.contiguous) == ((3, 1), True)
    with pytest.raises(kernels.ShapeError, match="expected strides of whole elements of 4 bytes, got 6 bytes"):
        arrays.view(Exported(typestr="<f4", shape=(2,), strides=(6,)), 1)


def test_the_interface_names_the_stream():
    assert arrays.stream_of(Exported(typestr="<f4", shape=(1,), stream=77)) == 77
    assert arrays.stream_of(Exported(typestr="<f4", shape=(1,), stream=None)) == arrays.DEFAULT_STREAM
    assert arrays.stream_of(Exported(typestr="<f4", shape=(1,))) == arrays.DEFAULT_STREAM


def test_what_lies_on_a_device():
    assert arrays.on_device(Exported(typestr="<f4", shape=(1,)))
    assert not arrays.on_device(torch.ones(3))
    assert not arrays.on_device(np.ones(3))
    assert not arrays.on_device([1.0])


def test_other_objects_are_refused():
    with pytest.raises(kernels.KernelError, match="expected one with __cuda_array_interface__ or __dlpack__, got list"):
        arrays.view([1.0], 1)
