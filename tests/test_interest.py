import cv2
import numpy as np
import pytest

from engine.config import LineRegion
from engine.errors import ConfigError, ContractError
from engine.interest import Drawing, Interest, View

LEFT = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))


def box(x, y, width, height):
    return ((x, y), (x + width, y), (x + width, y + height), (x, y + height))


def test_include_ignore_and_mask_together(tmp_path):
    random = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
    cv2.imwrite(str(tmp_path / "mask.png"), random)
    region = LineRegion(
        include=(box(5, 5, 20, 30), box(20, 10, 30, 10)), ignore=(box(10, 0, 5, 40),), mask=str(tmp_path / "mask.png")
    )
    expected = np.zeros((40, 60), bool)
    expected[5:35, 5:25] = expected[10:20, 20:50] = True
    expected[:, 10:15] = False
    expected &= random >= 128
    np.testing.assert_array_equal(Drawing(region).view((40, 60)).pixels, expected)
    doubled = Drawing(LineRegion(mask=str(tmp_path / "mask.png"))).view((80, 120)).pixels
    np.testing.assert_array_equal(doubled, np.kron(random >= 128, np.ones((2, 2), bool)))


def test_a_cell_of_a_map_counts_where_half_of_it_does():
    pixels = np.random.default_rng(1).random((48, 64)) < 0.5
    share = pixels.reshape(12, 4, 8, 8).mean(axis=(1, 3))
    view = View(pixels)
    np.testing.assert_array_equal(view.cells((12, 8)), share >= 0.5)
    raw = np.random.default_rng(2).normal(size=(12, 8)).astype(np.float32)
    assert view.peak(raw) == raw[share >= 0.5].max()
    dot = np.zeros((48, 64), bool)
    dot[5, 9] = True
    assert np.argwhere(View(dot).cells((12, 8))).tolist() == [[1, 1]]


def test_a_camera_has_its_own_region_or_the_lines():
    interest = Interest((LineRegion(unit="share", include=(LEFT,)), LineRegion(camera="b", ignore=(box(0, 0, 9, 9),))))
    assert interest.view("a", (10, 10)).pixels.sum() == 50
    assert interest.view("b", (10, 10)).pixels.sum() == 19
    assert interest.view("a", (10, 10)) is interest.view("c", (10, 10))  # drawn once
    assert Interest((LineRegion(camera="b", include=(LEFT,)),)).view("a", (10, 10)) is None


def test_a_region_that_is_not_in_the_picture_is_refused(tmp_path):
    with pytest.raises(ContractError, match=r"40 x 30 px, but a polygon .* reaches to x = 35, y = 20; .*'share'"):
        Drawing(LineRegion(include=(box(5, 10, 30, 10),))).view((40, 30))
    with pytest.raises(ContractError, match="leaves nothing of it"):
        Drawing(LineRegion(unit="share", include=(LEFT,), ignore=(LEFT,))).view((40, 30))
    with pytest.raises(ConfigError, match=r"none\.png cannot be read"):
        Drawing(LineRegion(mask=str(tmp_path / "none.png")))
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ConfigError, match=r"text\.png: .*format"):
        Drawing(LineRegion(mask=str(tmp_path / "text.png")))
