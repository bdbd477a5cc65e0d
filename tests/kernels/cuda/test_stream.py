"""Arrays of a stream, as far as they are there without a device."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.cuda.arrays import on_device, stream_of, view
from kernels.cuda.stream import DeviceArray
from kernels.errors import ShapeError


@pytest.fixture
def array():
    return DeviceArray(4096, (8, 3, 5), np.dtype(np.float32), 77, None)


def test_kernels_take_it_as_an_array_of_its_stream(array):
    assert on_device(array)
    assert stream_of(array) == 77
    found = view(array, 77)
    assert (found.address, found.shape, found.number) == (4096, (8, 3, 5), "float32")
    assert found.contiguous


def test_its_first_rows_are_the_same_memory(array):
    part = array.first(3)
    assert (part.address, part.shape, part.stream) == (4096, (3, 3, 5), 77)
    assert (array.size_bytes, part.size_bytes) == (480, 180)
    with pytest.raises(ShapeError, match="rows: expected 0 to 8, got 9"):
        array.first(9)
