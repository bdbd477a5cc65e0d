"""What of the plans' benchmark runs without a GPU: the roofline, the report that survives failures, the table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import kernels
from benchmarks import bench_plans
from benchmarks.roofline import Device, Work, network_flops, work_of
from engine import bundle as bundles
from engine.serving import tensorrt
from engine.serving.base import ConstantPredictor
from trainers.network.export import export_onnx

ROOT = Path(bench_plans.__file__).parents[1]

without_gpu = pytest.mark.skipif(tensorrt.why_not() is None, reason="plans run on this machine")


def test_flops_are_those_of_the_layers(tmp_path):
    """Against torch's own counter."""
    from torch.utils.flop_counter import FlopCounterMode

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.depthwise = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.up = torch.nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1)
            self.linear = torch.nn.Linear(4 * 16 * 16, 7)

        def forward(self, images):
            x = self.conv(images.float().permute(0, 3, 1, 2))
            return self.linear(self.up(self.depthwise(x).relu()).flatten(1))

    network = Net().eval()
    export_onnx(network, tmp_path / "net.onnx", 16, ("features",))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros((1, 16, 16, 3), dtype=torch.uint8))
    assert network_flops(tmp_path / "net.onnx") == counter.get_total_flops()


def test_a_detector_s_work_has_its_gaussian(tiny):
    bundle = bundles.read(tiny.path)
    work = work_of(bundle, "fp32")
    gaussian = kernels.Gaussian.load(tiny.path / "gaussian.safetensors")
    assert work.flops == network_flops(tiny.path / "network.onnx") + 2 * gaussian.factor.size
    assert work.model_bytes == (tiny.path / "network.onnx").stat().st_size + gaussian.nbytes
    assert (work.in_bytes, work.out_bytes) == (64 * 64 * 3, 64 * 64 * 4 + 4)


def test_the_slowest_part_is_the_roofline():
    device = Device({"fp32": 1e12, "fp16": 4e12}, memory_bytes_per_s=1e11, link_bytes_per_s=1e10)
    work = Work(flops=1e9, model_bytes=1e9, in_bytes=1e5, out_bytes=4e5)
    assert work.least_s(1, "fp32", device) == (pytest.approx(0.010005), "memory")
    assert work.least_s(64, "fp32", device) == (pytest.approx(0.064), "arithmetic")
    assert work.least_s(64, "fp16", device) == (pytest.approx(0.016), "arithmetic")
    slow = Device({"fp32": 1e15}, memory_bytes_per_s=1e13, link_bytes_per_s=1e9)
    assert work.least_s(64, "fp32", slow) == (pytest.approx(0.032), "link")


def test_a_step_that_fails_is_in_the_report_and_stops_nothing(tmp_path, capsys):
    report = bench_plans.Report(tmp_path / "plans.json", {"precisions": {"fp16": {}}})
    row = report.document["precisions"]["fp16"]

    def fail():
        raise AssertionError("the builder refused")

    assert report.step("build", row, fail) is None
    assert report.step("agreement", row, lambda: {"score": 0.5}) == {"score": 0.5}
    assert report.failed == ["build"]
    written = json.loads((tmp_path / "plans.json").read_text())
    assert written["precisions"]["fp16"] == {
        "build": {"error": "AssertionError: the builder refused"},
        "agreement": {"score": 0.5},
    }
    assert "build: FAILED" in capsys.readouterr().out


def test_times_and_shares():
    images = np.zeros((4, 8, 8, 3), np.uint8)
    row = {**bench_plans.alone(ConstantPredictor(), images, 0.02), "overlapped_frames_per_s": 1000.0}
    assert 0 < row["p50_ms"] <= row["p99_ms"]
    assert row["frames_per_s"] == pytest.approx(4 / row["p50_ms"] * 1e3, rel=0.5)
    assert bench_plans.overlapped(ConstantPredictor(), images, 0.5) > 0
    device = Device({"fp32": 1e12}, 1e12, 1e12)
    shares = bench_plans.share(row | {"p50_ms": 8.0}, 4, "fp32", Work(1e9, 0, 0, 0), device)
    assert shares == {"least_ms": 4.0, "bound": "arithmetic", "of_roofline": 0.5, "overlapped_of_roofline": 1.0}


def test_the_table_has_lines_and_failures():
    times = [{"batch": 1, "p50_ms": 0.5}, {"batch": 2, "p50_ms": 0.75}]
    precisions = {"fp32": {"build": {}, "times": times}, "int8": {"build": {"error": "BackendError: no"}}}
    document = {"model": "part@1", "gpu": "G", "tensorrt": "T", "precisions": precisions}
    lines = bench_plans.table(document).splitlines()
    assert lines[0] == "part@1 on G, T"
    assert "| fp32 | 2 | 0.75 |" in lines
    assert "int8: build: BackendError: no" in lines


@without_gpu
def test_without_a_gpu_it_says_so(tiny, capsys):
    assert bench_plans.main([str(tiny.path)]) == 2
    assert "expected a machine where plans run" in capsys.readouterr().err


def test_the_script_goes_on_after_a_step_that_fails(tmp_path):
    """The whole script, with a driver's tool that finds a device: every step fails here, and every one is named."""
    if tensorrt.why_not() is None:
        pytest.skip("this machine has a GPU")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvidia-smi").write_text("#!/bin/sh\necho 'No Such GPU, 1.0, 2 MiB'\n")
    (tmp_path / "bin/nvidia-smi").chmod(0o755)
    for name in ("a", "b"):
        (tmp_path / f"bundles/{name}").mkdir(parents=True)
        (tmp_path / f"bundles/{name}/bundle.json").write_text("{}")
    script = Path(bench_plans.__file__).with_name("gpu.sh")
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "OUT": str(tmp_path / "out"),
        "SITE": str(tmp_path / "site"),
        "BUNDLES": str(tmp_path / "bundles"),
        "PYTHON": "false",
        "STEPS": "tests plans",
    }
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"failed: tests plans-a plans-b; logs are in {tmp_path / 'out'}" in done.stdout
    assert (tmp_path / "out/plans-b.log").is_file()


def test_it_needs_what_the_script_installs():
    """On a machine without a network: what NumPy, torch and the script's list of packages bring."""
    code = "import sys; import benchmarks.bench_plans; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    ours = {"benchmarks", "engine", "kernels"}
    listed = {
        "google",
        "ml_dtypes",
        "msgspec",
        "onnx",
        "onnxruntime",
        "platformdirs",
        "psutil",
        "safetensors",
    }
    loaded = {name for name in done.stdout.split() if not name.startswith("_")} - sys.stdlib_module_names
    assert loaded & {"redis", "typer", "torch", "openvino", "tensorrt_rtx"} == set()
    assert ours | listed <= loaded
