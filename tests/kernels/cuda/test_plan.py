"""How problems are spread over a device: every plan fits, and small shapes do not read factors twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import _launch

# Multiprocessors, shared memory of a block and of a multiprocessor, compute capability.
A100 = (108, 166912, 167936, 8, 0)
RTX4090 = (128, 101376, 102400, 8, 9)
H100 = (132, 232448, 233472, 9, 0)
B200 = (148, 232448, 233472, 10, 0)
DEVICES = [A100, RTX4090, H100, B200]


def launch(device, batch, channels, grid, rank=0, storage="float32", features="float32"):
    shape = (batch, channels, *grid)
    strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(4))
    low_rank = 16 if rank else 0
    problem = _launch.problem(16, features, shape, strides, 16, storage, 16, low_rank, low_rank, low_rank, rank, 16)
    return _launch.map(problem, *device)


@pytest.mark.parametrize("device", DEVICES)
@given(
    batch=st.integers(1, 256),
    channels=st.integers(1, 2048),
    grid=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    rank=st.sampled_from([0, 0, 1, 99, 500]),
    storage=st.sampled_from(["float32", "bfloat16"]),
)
@settings(max_examples=200, deadline=None)
def test_every_plan_fits(device, batch, channels, grid, rank, storage):
    name, blocks, threads, shared_bytes, _ = launch(device, batch, channels, grid, min(rank, channels), storage)
    path, pictures = name.rsplit("_", 1)[0].removesuffix(f"_{storage}"), int(name.rsplit("_", 1)[1])
    assert path in (("low_rank", "low_rank_tensor") if rank else ("vector", "tensor"))
    assert threads % 32 == 0
    assert threads <= 256
    assert shared_bytes <= device[1]
    positions, groups = grid[0] * grid[1], -(-batch // pictures)
    assert blocks % groups == 0
    assert 8 * (blocks // groups) >= positions


@pytest.mark.parametrize(("channels", "grid"), [(100, (56, 56)), (176, (28, 28)), (448, (56, 56))])
@pytest.mark.parametrize("batch", range(1, 9))
@pytest.mark.parametrize("device", DEVICES)
def test_a_small_batch_is_one_group(device, channels, grid, batch):
    name, blocks, *_ = launch(device, batch, channels, grid)
    pictures = int(name.rsplit("_", 1)[1])
    assert name.startswith("vector")
    assert batch <= pictures < 2 * batch
    assert blocks <= grid[0] * grid[1]


@pytest.mark.parametrize(
    ("rank", "without", "with_them"), [(0, "vector", "tensor"), (30, "low_rank", "low_rank_tensor")]
)
@pytest.mark.parametrize(("device", "faster"), [(A100, True), (H100, True), (RTX4090, False)])
@pytest.mark.parametrize("batch", [9, 64])
def test_tensor_cores_where_they_are_faster(device, batch, rank, faster, without, with_them):
    assert launch(device, 8, 100, (56, 56), rank)[0].startswith(f"{without}_float32")
    chosen = with_them if faster else without
    assert launch(device, batch, 100, (56, 56), rank)[0].startswith(f"{chosen}_float32")


@pytest.mark.parametrize(("rank", "path"), [(0, "vector"), (99, "low_rank")])
def test_very_many_channels_leave_no_room_for_tensor_cores(rank, path):
    assert launch(A100, 64, 2048, (7, 7), rank)[0].startswith(f"{path}_float32")


def test_arguments_of_another_problem_are_refused():
    with pytest.raises(ValueError, match="of another problem"):
        _launch.map(b"", *H100)
    with pytest.raises(ValueError, match="expected float32, float16 or bfloat16, got 'float64'"):
        launch(H100, 1, 1, (1, 1), features="float64")
    with pytest.raises(ValueError, match="channels: expected at most 2048, got 2049"):
        launch(H100, 1, 2049, (1, 1))
