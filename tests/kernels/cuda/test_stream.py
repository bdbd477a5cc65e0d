"""Arrays of a stream, as far as they are there without a device."""

from __future__ import annotations

import numpy as np
import pytest

import kernels
from kernels.cuda.arrays import on_device, stream_of, view
from kernels.cuda.driver import Device
from kernels.cuda.stream import DeviceArray, Stream
from kernels.errors import KernelError, ShapeError


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


def no_device() -> str | None:
    try:
        Device.of(0)
    except KernelError as error:
        return str(error)
    return None


on_a_device = pytest.mark.skipif(no_device() is not None, reason=f"no CUDA device: {no_device()}")


@pytest.fixture
def stream():
    opened = Stream(Device.of(0))
    yield opened
    opened.close()


@on_a_device
@pytest.mark.gpu
def test_copies_arrive(stream):
    there, back = (stream.device.pinned((5, 3), np.float32) for _ in range(2))
    there[:] = np.arange(15).reshape(5, 3)
    array = stream.empty((8, 3), np.float32)
    stream.copy_in(there, array.first(5))
    stream.copy_out(array.first(5), back)
    stream.wait()
    np.testing.assert_array_equal(back, there)
    with pytest.raises(ShapeError, match=r"copy: expected a C-contiguous float32 array \(8, 3\), got float32 \(5, 3\)"):
        stream.copy_in(there, array)


@on_a_device
@pytest.mark.gpu
@pytest.mark.parametrize("form", ["triangular", "low_rank"])
def test_a_recorded_map_is_that_of_the_pictures_at_launch(stream, world, form):
    w = world(20, grid=(4, 4), samples=50, batch=6)
    model = kernels.fit(w.train, 0.5, factorisation=form)
    features, out = stream.empty(w.test.shape, np.float32), stream.empty((6, 4, 4), np.float32)
    given, got = stream.device.pinned(w.test.shape, np.float32), stream.device.pinned((6, 4, 4), np.float32)
    kernels.mahalanobis_map(features, model, out)  # compiles, and copies the model
    stream.wait()
    with stream.recording() as graph:
        kernels.mahalanobis_map(features, model, out)
    for pictures in (w.test, w.train[:6]):
        given[:] = pictures
        stream.copy_in(given, features)
        graph.launch()
        stream.copy_out(out, got)
        stream.wait()
        np.testing.assert_allclose(got, kernels.mahalanobis_map(pictures, model), rtol=1e-5)
