"""A plan is built once, and again, with a line that says why, when it does not fit."""

from __future__ import annotations

import logging
import os
import shutil

import msgspec
import pytest

from engine import bundle as bundles
from engine.machine import gpu
from engine.plans import library, store
from engine.plans import record as records
from engine.plans.build import BuildOptions, Profile

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no package for this platform")

SMALL = BuildOptions(Profile(1, 1, 2))


@pytest.fixture
def rtx():
    return library.find("tensorrt_rtx")


@pytest.fixture
def bundle(tiny, tmp_path):
    """A copy of the bundle that may be written to."""
    shutil.copytree(tiny.path, tmp_path / "bundle")
    return bundles.read(tmp_path / "bundle")


@pytest.fixture
def built(bundle, rtx):
    return store.ensure(bundle, "fp32", rtx, SMALL)


def test_it_lies_beside_its_network_with_its_record(built, bundle, rtx):
    assert built.path == bundle.path / "network.plan"
    assert bundles.sha256(built.path) == built.record.plan_sha256
    assert built.record.network_sha256 == bundles.sha256(bundle.path / "network.onnx")
    assert (built.record.builder, built.record.builder_version) == ("tensorrt_rtx", rtx.version)
    assert built.record.device == (gpu() and gpu().name)
    assert built.record.batch == (1, 1, 2)
    assert built.reason == "there is none"
    assert bundles.read(bundle.path) == bundle  # still the same bundle


def test_it_is_built_once(built, bundle, rtx, caplog):
    caplog.set_level(logging.INFO, logger="engine")
    again = store.ensure(bundle, "fp32", rtx)
    assert (again.content, again.record, again.reason) == (built.content, built.record, None)
    assert caplog.records == []


def damage(built):
    built.path.write_bytes(built.content[:-1])


def forget(built):
    records.path_of(built.path).unlink()


def change(**changes):
    return lambda built: records.write(built.path, msgspec.structs.replace(built.record, **changes))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (damage, "the one there is damaged (its SHA-256 is not the record's)"),
        (forget, "the one there has no build record"),
        (change(builder="tensorrt"), "it was built by tensorrt, this machine has tensorrt_rtx"),
        (change(builder_version="1.0.0"), "it was built by tensorrt_rtx 1.0.0, this is "),
        (change(network_sha256="0" * 64), "it was built from another ONNX file"),
    ],
)
def test_one_that_does_not_fit_is_built_again_and_says_why(built, bundle, rtx, caplog, spoil, why):
    spoil(built)
    caplog.set_level(logging.INFO, logger="engine.plans.store")
    again = store.ensure(bundle, "fp32", rtx, SMALL)
    (line,) = [record.message for record in caplog.records if record.name == "engine.plans.store"]
    assert line.startswith(f"tiny@1: building network.plan, because {why}")
    assert again.record == msgspec.structs.replace(built.record, plan_sha256=again.record.plan_sha256)
    assert store.ensure(bundle, "fp32", rtx).reason is None


def test_it_is_built_again_with_what_it_was_built_with(built, bundle, rtx):
    change(builder_version="1.0.0")(built)
    assert store.ensure(bundle, "fp32", rtx).record.batch == (1, 1, 2)


def test_other_options_make_another_plan(built, bundle, rtx):
    other = store.ensure(bundle, "fp32", rtx, BuildOptions(Profile(1, 2, 3)))
    assert (other.reason, other.record.batch) == ("it was built with other options", (1, 2, 3))


def test_a_folder_that_cannot_be_written_costs_time_only(bundle, rtx, caplog):
    (bundle.path / f"network.plan.{os.getpid()}").mkdir()
    plan = store.ensure(bundle, "fp32", rtx, SMALL)
    assert len(plan.content) > 10_000
    assert "the plan cannot be kept" in caplog.text
    assert not plan.path.exists()
