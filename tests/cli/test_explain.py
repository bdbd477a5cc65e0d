"""`engine explain` as a person types it."""

from __future__ import annotations

import json
import shutil

import cv2
import msgspec
import numpy as np
import pytest

from engine import bundle as bundles


@pytest.fixture
def spotted(pictures, tmp_path):
    """The file of a picture with a bright spot."""
    image = pictures[0].copy()
    image[16:32, 24:40] = 255
    cv2.imwrite(str(tmp_path / "spotted.png"), image[..., ::-1])
    return tmp_path / "spotted.png"


def test_one_document_and_the_files_of_the_page(run, tiny, spotted, tmp_path):
    out = tmp_path / "out"
    status, stdout, stderr = run("explain", tiny.path, spotted, "--out", out, "--threads", 1, "--json")
    assert status == 0, stderr
    document = json.loads(stdout)
    assert document == json.loads((out / "explanation.json").read_text())
    assert (document["model"], document["decision"], document["pred_label"]) == ("tiny@1", "reject", True)
    assert document["scores"] == {"fyd": document["pred_score"]}
    (region,) = document["regions"]
    found = document["models"]["fyd"]
    x, y = found["place"]
    left, top, width, height = region["bbox"]
    assert left <= x < left + width
    assert top <= y < top + height
    assert found["integrated_gradients"]["complete"]
    assert found["grad_cam"] is None
    assert {"explanation.html", "heat-map.png", "arrays.npz"} <= {path.name for path in out.iterdir()}


def test_it_says_the_verdict_in_words(run, tiny, spotted):
    status, stdout, _ = run("explain", tiny.path, spotted, "--steps", 1, "--threads", 1)
    assert status == 0
    assert "rejected" in stdout
    assert "decided at" in stdout


@pytest.mark.parametrize(
    ("bundle", "image", "baseline", "said"),
    [
        ("nowhere", "spotted.png", "blur", "no bundle here"),
        ("tiny", "gone.png", "blur", "gone.png cannot be read"),
        ("tiny", "text.png", "blur", "IMAGE: "),
        ("tiny", "spotted.png", "gone.png", "--baseline (a file, or one of blur, black)"),
        ("int8", "spotted.png", "blur", "no fp32 executable"),
    ],
)
def test_wrong_input_exits_2_with_one_line(run, tiny, spotted, tmp_path, monkeypatch, bundle, image, baseline, said):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.path, "tiny")
    shutil.copytree(tiny.path, "int8")
    manifest = bundles.read("int8").manifest
    other = msgspec.structs.replace(manifest, executables={"int8": manifest.executables["fp32"]})
    bundles.write_manifest(tmp_path / "int8", other)
    (tmp_path / "text.png").write_text("no picture")
    status, stdout, stderr = run("explain", bundle, image, "--baseline", baseline, "--threads", 1)
    assert (status, stdout) == (2, "")
    lines = stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("engine: error: ")
    assert said in lines[0]


def test_small_pictures_are_explained_at_their_own_size(run, tiny, tmp_path):
    cv2.imwrite(str(tmp_path / "small.png"), np.full((20, 30), 120, np.uint8))
    out = tmp_path / "out"
    status, _, stderr = run("explain", tiny.path, tmp_path / "small.png", "--out", out, "--steps", 1, "--threads", 1)
    assert status == 0, stderr
    assert cv2.imread(str(out / "occlusion.png")).shape == (20, 30, 3)
