"""When a plan fits a machine, by its record alone."""

from __future__ import annotations

import msgspec
import pytest

from engine.errors import BundleError
from engine.machine import Gpu, parse_gpu
from engine.plans import record as records
from engine.plans.build import BuildOptions, Profile
from engine.plans.record import PlanRecord, misfit

H100 = Gpu("NVIDIA H100 80GB HBM3", (9, 0), "580.82")
RTX = Gpu("NVIDIA GeForce RTX 4090", (8, 9), "580.82")
FULL = PlanRecord(
    builder="tensorrt",
    builder_version="10.14.1",
    device=H100.name,
    capability=H100.capability,
    precision="fp16",
    batch=(1, 8, 32),
    version_compatible=False,
    network_sha256="a" * 64,
    plan_sha256="b" * 64,
)


def fits(record, **changes):
    here = {"network_sha256": "a" * 64, "builder": "tensorrt", "builder_version": "10.14.1", "gpu": H100}
    return misfit(record, **(here | changes))


def test_the_machine_it_was_built_on_fits():
    assert fits(FULL) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"network_sha256": "c" * 64}, "it was built from another ONNX file"),
        ({"builder": "tensorrt_rtx"}, "it was built by tensorrt, this machine has tensorrt_rtx"),
        ({"builder_version": "10.15.0"}, "it was built by tensorrt 10.14.1, this is 10.15.0"),
        ({"gpu": RTX}, "it was built on NVIDIA H100 80GB HBM3, this is NVIDIA GeForce RTX 4090"),
    ],
)
def test_what_differs_is_said(changes, why):
    assert fits(FULL, **changes) == why


def test_a_plan_for_later_versions_fits_them():
    assert fits(msgspec.structs.replace(FULL, version_compatible=True), builder_version="10.15.0") is None


def test_a_plan_of_rtx_fits_every_device():
    """It is compiled for the device when it is loaded."""
    here = {"builder": "tensorrt_rtx", "builder_version": "1.7.1"}
    without = msgspec.structs.replace(FULL, **here, device=None, capability=None)
    assert fits(without, **here, gpu=RTX) is None
    assert fits(without, **here, gpu=None) is None


def test_a_record_says_what_to_build_again_with():
    assert FULL.options == BuildOptions(Profile(1, 8, 32), version_compatible=False)


def test_a_record_is_read_as_it_was_written(tmp_path):
    plan = tmp_path / "network.plan"
    assert records.read(plan) is None
    records.write(plan, FULL)
    assert (tmp_path / "network.plan.json").is_file()
    assert records.read(plan) == FULL


@pytest.mark.parametrize("text", ["{", '{"builder": "nvcc"}', "[]"])
def test_a_damaged_record_is_refused(tmp_path, text):
    (tmp_path / "network.plan.json").write_text(text)
    with pytest.raises(BundleError, match=r"network\.plan\.json: not a build record .* remove it"):
        records.read(tmp_path / "network.plan")


def test_a_device_is_read_from_the_driver_s_line():
    assert parse_gpu("NVIDIA H100 80GB HBM3, 9.0, 580.82\n") == H100
    for other in ("", "No devices were found\n", "NVIDIA X, [N/A], 1.0", "a, b, c"):
        assert parse_gpu(other) is None
