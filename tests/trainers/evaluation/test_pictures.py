"""Heat maps on one fixed scale, contact sheets, charts."""

import re
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from trainers.dataset.good import Item
from trainers.evaluation.charts import Scores, pro, roc, score_histogram
from trainers.evaluation.evaluate import Judged, Sight
from trainers.evaluation.pictures import PANELS, caption, fitted, heat, jpeg, overlay, panels, truth, write_pictures


def photo(height=40, width=60):
    return np.random.default_rng(0).integers(60, 200, (height, width, 3), np.uint8)


def sight(name="test/scratch/003.png", defect="scratch", score=0.8, peak=0.9, size=(40, 60)):
    """A picture with one round peak and, when it is defective, a mask around it."""
    y, x = np.mgrid[: size[0], : size[1]]
    scores = peak * np.exp(-((y - 20) ** 2 + (x - 30) ** 2) / 60)
    mask = None if defect is None else scores > peak / 2
    judged = Judged(Item(name, Path(name), defect), 10 * score, score)
    return Sight(judged, photo(*size), np.rint(scores * 65535).astype(np.uint16), mask)


def test_a_score_has_the_same_colour_in_every_picture():
    calm, busy = np.full((4, 4), 0.4, np.float32), np.full((4, 4), 0.4, np.float32)
    busy[0] = 1.0
    assert (heat(calm)[2] == heat(busy)[2]).all()
    assert heat(np.array([[-1.0, 0.0, 1.0, 2.0]], np.float32)).tolist()[0][1:3] == [
        heat(np.zeros((1, 1), np.float32))[0, 0].tolist(),
        heat(np.ones((1, 1), np.float32))[0, 0].tolist(),
    ]


def test_lightness_rises_with_the_score():
    ramp = heat(np.linspace(0, 1, 64, dtype=np.float32)[None])
    lightness = cv2.cvtColor(ramp, cv2.COLOR_RGB2LAB)[0, :, 0].astype(int)
    assert (np.diff(lightness) >= 0).all()
    assert lightness[0] < 10
    assert lightness[-1] > 230


def test_good_parts_stay_as_they_are():
    image = photo()
    good = np.random.default_rng(1).uniform(0, 0.3, image.shape[:2]).astype(np.float32)
    assert (overlay(image, good) == image).all()
    usual = heat(np.full((1, 1), 0.1, np.float32))[0, 0].astype(int)
    assert usual[0] < 40  # not red


def test_overlay_covers_more_as_the_score_rises_and_outlines_the_threshold():
    image = np.zeros((60, 60, 3), np.uint8)
    covered = [int(overlay(image, np.full((60, 60), s, np.float32))[30, 30].sum()) for s in (0.3, 0.4, 0.6, 0.8, 1.0)]
    assert covered == sorted(covered)
    assert covered[0] == 0
    scores = np.full((60, 60), 0.4, np.float32)
    scores[20:40, 20:40] = 0.6
    white = (overlay(image, scores) > 200).all(axis=2)
    assert white[20, 20:40].all()
    assert not white[25:35, 25:35].any()
    assert not (overlay(image, np.minimum(scores, 0.49)) > 200).all(axis=2).any()


def test_ground_truth_is_marked_where_it_is():
    seen = sight()
    marked = truth(seen.image, seen.mask)
    changed = (marked != seen.image).any(axis=2)
    grown = cv2.dilate(seen.mask.astype(np.uint8), np.ones((3, 3))) > 0
    assert changed[seen.mask].mean() > 0.95
    assert not changed[~grown].any()


def test_panels_have_the_pictures_own_size():
    views = panels(sight(size=(40, 60)))
    assert tuple(views) == PANELS
    assert {view.shape for view in views.values()} == {(40, 60, 3)}
    assert {view.dtype for view in views.values()} == {np.dtype(np.uint8)}


def test_fitted_never_enlarges():
    assert fitted(photo(100, 400), 200).shape == (50, 200, 3)
    assert fitted(photo(10, 20), 200).shape == (10, 20, 3)
    assert fitted(photo(1, 4000), 200).shape == (1, 200, 3)


def test_jpeg_keeps_rgb_order():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 220
    back = cv2.imdecode(np.frombuffer(jpeg(red), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.abs(back.astype(int) - red).max() < 8


def test_captions_say_what_it_is_and_what_was_said():
    assert caption(sight().judged) == ("scratch/003.png", "rejected, 0.80")
    assert caption(sight("7.png", None, score=0.4999).judged) == ("7.png", "passed, 0.50")


def test_pictures_and_sheets_are_written(tmp_path):
    sights = [sight(f"test/scratch/{i}.png") for i in range(4)] + [sight("test/good/a.png", None, 0.1, 0.2)]
    sheets = write_pictures(tmp_path, iter(sights), "screw", per_sheet=3)
    assert [path.name for path in sheets] == ["sheet-001.png", "sheet-002.png"]
    for path in sheets:
        picture = cv2.imread(str(path))
        assert picture.shape[1] > 1000
        assert picture.std() > 10
    overlays = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("overlays/**/*.jpg"))
    assert overlays == ["overlays/test/good/a.jpg", *(f"overlays/test/scratch/{i}.jpg" for i in range(4))]
    assert cv2.imread(str(tmp_path / overlays[0])).shape == (40, 60, 3)


def scores(seed=0):
    rng = np.random.default_rng(seed)
    return Scores(rng.uniform(0, 0.5, 40), rng.uniform(0.2, 1, 30))


CHARTS = {
    "histogram": lambda: score_histogram(scores(), 0.3),
    "roc": lambda: roc(scores(), {"fyd alone": scores(1), "cascade": scores(2)}),
    "pro": lambda: pro(np.linspace(0, 1, 151) ** 0.2, {"fyd alone": None, "cascade": np.linspace(0, 1, 151)}),
}


@pytest.mark.parametrize("draw", CHARTS.values(), ids=CHARTS)
def test_charts_are_svg_for_both_themes_and_the_same_every_time(draw):
    chart = draw()
    for svg in (chart.light, chart.dark):
        assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert chart.light != chart.dark
    assert chart == draw()


def test_chart_words_say_the_rates():
    chart = roc(Scores(np.array([0.1, 0.2, 0.3, 0.6]), np.array([0.4, 0.7])))
    assert "50% of defects are caught and 25.0% of good ones rejected" in chart.words
    assert "4 good and 0 defective" in score_histogram(Scores(np.full(4, 0.1), np.empty(0))).words
    assert "for review at 0.30" in CHARTS["histogram"]().words
    assert "With fyd alone, cascade beside it." in CHARTS["roc"]().words
    assert "With cascade beside it." in CHARTS["pro"]().words


def bars(svg):
    """The heights of each histogram that is outlined in a chart, (k, 50)."""
    found = []
    for path in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path"):
        points = np.array(re.findall(r"[ML] ([-0-9.]+) ([-0-9.]+)", path.get("d") or ""), float)
        if len(points) == 102:  # up, along each bar and down to it
            found.append(points[0, 1] - points[1:101:2, 1])
    return found


def test_histogram_bars_are_the_counts():
    drawn = scores()
    good_area, good, bad_area, bad = bars(score_histogram(drawn).light)
    for found, values in (
        (good_area, drawn.good),
        (good, drawn.good),
        (bad_area, drawn.defective),
        (bad, drawn.defective),
    ):
        counts = np.array([np.count_nonzero((values >= i / 50) & (values < (i + 1) / 50)) for i in range(50)])
        np.testing.assert_allclose(found / found.max(), counts / counts.max(), atol=1e-3)
