"""What of the GPU benchmark runs without a GPU: the packing that its models rest on, its table, its script."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import kernels
from benchmarks import bench_cuda

SCRIPT = Path(bench_cuda.__file__).with_name("gpu.sh")


@pytest.mark.parametrize("channels", [1, 7, 8, 16, 17, 33, 100])
def test_packed_factors_are_those_of_the_kernels(channels):
    rng = np.random.default_rng(0)
    dense = np.tril(rng.standard_normal((6, channels, channels))).astype(np.float32)
    packed = bench_cuda.pack(torch.from_numpy(dense)).numpy()
    mean = rng.standard_normal((2, 3, channels)).astype(np.float32)
    model = kernels.Gaussian(mean, packed, "float32", np.array(0.0), 2)
    features = rng.standard_normal((4, channels, 2, 3)).astype(np.float32)
    y = features.reshape(4, channels, 6).transpose(2, 1, 0) - mean.reshape(6, channels, 1)
    expected = np.linalg.norm(dense.astype(np.float64) @ y, axis=1).T.reshape(4, 2, 3)
    np.testing.assert_allclose(kernels.mahalanobis_map(features, model), expected, rtol=1e-5)


def test_the_step_of_torch_is_the_map():
    rng = np.random.default_rng(0)
    dense = torch.from_numpy(np.tril(rng.standard_normal((6, 9, 9))).astype(np.float32))
    mean = torch.from_numpy(rng.standard_normal((2, 3, 9)).astype(np.float32))
    model = bench_cuda.Model(dense, bench_cuda.pack(dense), mean)
    features = rng.standard_normal((4, 9, 2, 3)).astype(np.float32)
    gaussian = kernels.Gaussian(mean.numpy(), model.factor.numpy(), "float32", np.array(0.0), 2)
    got = bench_cuda.step(model, torch.from_numpy(features)).T.reshape(4, 2, 3)
    np.testing.assert_allclose(got, kernels.mahalanobis_map(features, gaussian), rtol=1e-5)


def test_the_low_rank_step_of_torch_is_the_map():
    rng = np.random.default_rng(0)
    train, features = rng.standard_normal((2, 5, 9, 2, 3)).astype(np.float32)
    gaussian = kernels.fit(train, 1.0, factorisation="low_rank")
    factor, mean, weights = (torch.from_numpy(x) for x in (gaussian.factor, gaussian.mean, gaussian.weights))
    model = bench_cuda.Model(factor[..., :9], factor, mean, weights)
    got = bench_cuda.step(model, torch.from_numpy(features)).T.reshape(5, 2, 3)
    np.testing.assert_allclose(got, kernels.mahalanobis_map(features, gaussian), rtol=1e-5)


def test_the_table_has_a_line_for_every_row():
    row = bench_cuda.Row("2x3", 9, 0, "float32", 4, "vector_float32_4", 1.5, 2.0, 0.5, 3.0, 4.0, 2.0, 1e-7)
    document = {"device": "D", "copy_gb_per_s": 4.0, "torch": "2", "rows": [bench_cuda.asdict(row)] * 3}
    lines = bench_cuda.table(document).splitlines()
    assert len(lines) == 7
    assert lines[-1].startswith("| 2x3 | 9 | 0 | float32 | 4 | vector_float32_4 | 1.5 | 2.0 | 0.5 |")
    assert lines[-1].endswith("| 1.0e-07 |")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so(capsys):
    assert bench_cuda.main([]) == 2
    assert "expected a CUDA device" in capsys.readouterr().err


def test_help_needs_no_gpu(capsys):
    with pytest.raises(SystemExit, match="0"):
        bench_cuda.main(["--help"])
    assert "--quick" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_the_script_says_that_it_needs_a_gpu(tmp_path):
    done = subprocess.run(["bash", SCRIPT], env=os.environ | {"OUT": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 2
    assert "expected an NVIDIA GPU" in done.stderr


def test_the_script_is_valid_shell():
    subprocess.run(["bash", "-n", SCRIPT], check=True)
