"""`engine export --target tensorrt`: a bundle with a plan in it, by the real builder."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from engine import bundle as bundles
from engine.cli import main
from engine.errors import UsageError
from engine.export import registry
from engine.export.base import ExportOptions
from engine.export.tensorrt import build_options
from engine.plans import record as records
from engine.plans.build import BuildOptions, Profile
from engine.serving import tensorrt as serving
from engine.serving.select import open_local

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no package for this platform")

cannot_run = pytest.mark.skipif(serving.why_not() is None, reason="plans run on this machine")


def options(source, out, **others):
    def recalibrate(*_):
        pytest.fail("recalibration was asked for")

    return ExportOptions(source, out, recalibrate, **others)


@pytest.fixture
def source(tiny):
    return bundles.read(tiny.path)


@pytest.fixture
def exported(source, tmp_path):
    registry.get("tensorrt").export(options(source, tmp_path / "out", batch="1,2,4"))
    return bundles.read(tmp_path / "out")


def test_float32_is_the_bundle_s_own_executable_with_a_plan(source, exported):
    assert exported.manifest == source.manifest
    names = {path.name for path in exported.path.iterdir()}
    assert names == {"bundle.json", "network.onnx", "gaussian.safetensors", "network.plan", "network.plan.json"}
    assert records.read(exported.path / "network.plan").batch == (1, 2, 4)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    a, b = (open_local(bundle, "onnx", "fp32", threads=1).predict(images) for bundle in (source, exported))
    np.testing.assert_array_equal(a.maps, b.maps)


def test_the_document_has_the_build_record(source, tmp_path):
    document = registry.get("tensorrt").export(options(source, tmp_path / "out"))
    assert document["build"]["batch"] == (1, 8, 32)
    assert document["build"]["plan_sha256"] == bundles.sha256(tmp_path / "out/network.plan")
    assert json.loads((tmp_path / "out/network.plan.json").read_text())["builder"] == document["build"]["builder"]
    assert {file["path"] for file in document["files"]} == {path.name for path in (tmp_path / "out").iterdir()}


@cannot_run
def test_a_plan_that_was_not_run_is_reported_as_such(source, tmp_path, caplog):
    document = registry.get("tensorrt").export(options(source, tmp_path / "out"))
    assert document["agreement"] is None
    assert "the plan was built but not run here, so its scores are not checked" in caplog.text


def test_an_older_export_is_replaced_and_nothing_else(source, exported, tmp_path):
    registry.get("tensorrt").export(options(source, exported.path))
    assert records.read(exported.path / "network.plan").batch == (1, 8, 32)
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="exists and is not a bundle"):
        registry.get("tensorrt").export(options(source, tmp_path))


@pytest.mark.parametrize("text", ["8", "1,8", "1,x,8", "8,4,1", ""])
def test_a_batch_that_is_none_is_refused(source, tmp_path, text):
    with pytest.raises(UsageError, match="expected LEAST,BEST,MOST"):
        registry.get("tensorrt").export(options(source, tmp_path / "out", batch=text))
    assert not list(tmp_path.iterdir())


def test_the_command_line_becomes_build_options(source, tmp_path):
    given = options(source, tmp_path, batch="2,16,256", version_compatible=True)
    assert build_options(given) == BuildOptions(Profile(2, 16, 256), version_compatible=True)
    assert build_options(options(source, tmp_path)) == BuildOptions()


def test_the_command(tiny, tmp_path, capsys, caplog):
    caplog.set_level(logging.CRITICAL)
    given = ["export", str(tiny.path), "--target", "tensorrt", "--out", str(tmp_path / "out"), "--batch", "1,1,1"]
    assert main([*given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "tiny@1"
    assert main(given) == 0
    assert "network.plan" in capsys.readouterr().out


def test_other_precisions_need_the_training_pictures(tiny, tmp_path, capsys):
    given = ["export", str(tiny.path), "--target", "tensorrt", "--precision", "fp16", "--out", str(tmp_path / "out")]
    assert main(given) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "x: the pictures that" in said
    assert "give --data FOLDER" in said
    assert not list(tmp_path.iterdir())
