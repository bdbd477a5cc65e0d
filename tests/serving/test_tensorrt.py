"""What of the TensorRT backend runs without a GPU: what it says there, and how batches become runs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from engine import bundle as bundles
from engine.cli import main
from engine.errors import BackendError
from engine.export import agreement
from engine.plans import library
from engine.serving import select, tensorrt
from engine.serving.lane import batch_of

runs = pytest.mark.skipif(tensorrt.why_not() is not None, reason=f"plans cannot run here: {tensorrt.why_not()}")
does_not_run = pytest.mark.skipif(tensorrt.why_not() is None, reason="plans run on this machine")


@does_not_run
def test_without_a_device_it_is_refused_in_one_line(tiny, capsys):
    with pytest.raises(BackendError, match=r"backend 'tensorrt' cannot run here \(.+\); use backend 'auto', 'onnx'"):
        select.open_local(bundles.read(tiny.path), "tensorrt", "fp32", threads=1)
    assert main(["serve", "--line", f"a={tiny.path}", "--backend", "tensorrt", "--redis", "embedded"]) == 1
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "error" in text]
    assert "cannot run here" in line


@does_not_run
def test_auto_does_not_consider_it():
    assert "tensorrt" not in select.local_backends()


def test_no_tensorrt_is_loaded_where_there_is_no_gpu():
    code = "from engine.serving import select; select.local_backends(); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    if tensorrt.why_not() is not None:
        assert not loaded & {"tensorrt", "tensorrt_rtx", "pycuda"}
    assert "torch" not in loaded


@pytest.mark.parametrize(
    ("n", "least", "most", "size"),
    [
        (1, 1, 32, 1),
        (2, 1, 32, 2),
        (3, 1, 32, 4),
        (8, 1, 32, 8),
        (9, 1, 32, 16),
        (33, 1, 48, 48),
        (3, 3, 3, 3),
        (1, 6, 8, 6),
    ],
)
def test_a_batch_runs_in_the_next_power_of_two_that_the_plan_takes(n, least, most, size):
    assert batch_of(n, least, most) == size


def test_graphs_are_few():
    assert len({batch_of(n, 1, 256) for n in range(1, 257)}) == 9


def test_the_library_has_what_is_called():
    """Names of the interface that only run on a device."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no package for this platform")
    module = library.find("tensorrt_rtx").module
    called = {
        "Runtime": ("deserialize_cuda_engine", "engine_host_code_allowed"),
        "ICudaEngine": (
            "create_execution_context",
            "create_runtime_config",
            "device_memory_size_v2",
            "get_tensor_name",
            "get_tensor_profile_shape",
            "get_tensor_shape",
            "num_io_tensors",
        ),
        "IRuntimeConfig": (
            "dynamic_shapes_kernel_specialization_strategy",
            "create_runtime_cache",
            "set_execution_context_allocation_strategy",
            "set_runtime_cache",
        ),
        "IExecutionContext": ("execute_async_v3", "set_device_memory", "set_input_shape", "set_tensor_address"),
        "ExecutionContextAllocationStrategy": ("USER_MANAGED",),
        "DynamicShapesKernelSpecializationStrategy": ("EAGER",),
    }
    missing = [
        f"{kind}.{name}" for kind, names in called.items() for name in names if not hasattr(getattr(module, kind), name)
    ]
    assert missing == []


@runs
@pytest.mark.gpu
def test_a_plan_gives_the_scores_of_onnx_runtime(tiny):
    bundle = bundles.read(tiny.path)
    detector = tensorrt.open_detector(bundle, "fp32")
    images = np.random.default_rng(0).integers(0, 256, (45, 64, 64, 3), dtype=np.uint8)
    for n in (1, 3, 8, 45):
        found = agreement.compare(detector, bundle, "fp32", images[:n])
        assert max(found.score, found.map) < 1e-3
    detector.close()


@does_not_run
def test_an_ensemble_is_refused_by_its_first_member_where_there_is_no_device(duo):
    with pytest.raises(BackendError, match=r"backend 'tensorrt' cannot run here \(.+\); use backend 'auto'"):
        select.open_local(bundles.read(duo), "tensorrt", "fp32", threads=1)


@runs
@pytest.mark.gpu
def test_an_ensemble_s_plans_give_the_scores_of_onnx_runtime(duo):
    bundle = bundles.read(duo)
    ensemble = select.open_local(bundle, "tensorrt", "fp32", threads=1)
    found = agreement.compare(ensemble, bundle, "fp32", agreement.noise(bundle))
    assert max(found.score, found.map) < 1e-3
    ensemble.close()
