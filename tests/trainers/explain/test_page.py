"""The files of an explanation: pictures show what the numbers say, the page needs nothing else."""

from __future__ import annotations

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest

from engine.api import load
from trainers.explain import Options, Subject, explain, write_explanations
from trainers.explain.cam import Cam
from trainers.explain.views import glow, signed, views
from trainers.progress import RecordedProgress

NAMES = ["heat-map", "integrated-gradients", "for-and-against", "occlusion"]


@pytest.fixture
def explanation(small, spotted):
    return explain(small.bundle, small.served.predict, spotted, Options(threads=1), RecordedProgress())


@pytest.fixture
def write(tiny, spotted, tmp_path):
    """Write explanations of the spotted picture into a folder; returns the page's text."""
    with load(tiny.path, backend="onnx", threads=1) as model:
        (result,) = model.predict(spotted)

    def write(explanations, name="a.png", shares=None, baseline="blur"):
        write_explanations(tmp_path / "out", Subject(name, spotted, result, shares or {}, baseline), explanations)
        return (tmp_path / "out" / "explanation.html").read_text()

    return write


@pytest.fixture
def grey():
    return np.full((40, 60, 3), 100, np.uint8)


def test_light_falls_where_the_amount_is(grey):
    amounts = np.zeros((20, 30), np.float32)
    amounts[5:8, 20:25] = 3
    found = glow(grey, amounts).astype(int).sum(axis=2)
    assert found.shape == (40, 60)
    assert found[13, 44] == found.max() > 500
    assert found[35, 5] == 3 * 60
    assert (glow(grey, np.zeros_like(amounts)) == 60).all()


def test_red_is_above_and_blue_below_nought(grey):
    values = np.zeros((20, 30), np.float32)
    values[3:7, 3:7], values[13:17, 22:26] = 2, -2
    found = signed(grey, values).astype(int)
    assert found[10, 10, 0] > found[10, 10, 2] + 100
    assert found[30, 48, 2] > found[30, 48, 0] + 100
    assert (found[30, 10] == 60).all()


def test_a_layer_gives_one_picture_more(explanation):
    assert list(views(explanation)) == NAMES
    cam = Cam(np.eye(8, dtype=np.float32), "relu", 64)
    assert list(views(replace(explanation, cam=cam))) == [*NAMES, "grad-cam"]


def test_files_hold_what_was_found(explanation, write, tmp_path):
    write({"fyd": explanation})
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {*(f"{name}.png" for name in NAMES), "arrays.npz", "explanation.html"}
    for name in NAMES:
        assert cv2.imread(str(tmp_path / f"out/{name}.png")).shape == explanation.image.shape
    with np.load(tmp_path / "out/arrays.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["integrated_gradients"], explanation.attribution.values)
        assert np.array_equal(arrays["occlusion"], explanation.occlusion.values)
        assert arrays["heat_map"].shape == explanation.image.shape[:2]
        assert set(arrays) == {"picture", "baseline", "heat_map", "integrated_gradients", "occlusion"}


def test_the_page_is_one_file_that_says_what_holds(explanation, write):
    page = write({"fyd": explanation}, name="<i>a</i>.png", baseline="good/<b>.png")
    assert "<i>a" not in page
    assert "the picture good/&lt;b&gt;.png" in page
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 1 + len(NAMES)
    assert all(source.startswith("data:") for source in sources)
    text = re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert f"correlation {explanation.agreement:.2f}" in text
    assert "no: more --steps" not in text
    missed = replace(explanation.attribution, gap=2 * explanation.attribution.allowed)
    page = write({"fyd": replace(explanation, attribution=missed, agreement=0.1)})
    assert "no: more --steps" in page
    assert "no: trust the heat map and occlusion only" in page


def test_several_models_have_folders_of_their_own(explanation, write, tmp_path):
    page = write({"fyd": explanation, "igd": explanation}, shares={"fyd": 3.0, "igd": 1.0})
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"explanation.html", "heat-map.png", "fyd", "igd"}
    assert (tmp_path / "out" / "igd" / "arrays.npz").is_file()
    assert "Score of fyd" in page
    assert "Score of igd" in page
    assert "75% of the ensemble" in page
    assert "What they saw together" in page
