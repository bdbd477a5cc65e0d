"""The report is one file that needs nothing else, says what the numbers say, and shows the right pictures."""

import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from engine.contract import Calibration, Estimate, Scale
from engine.serving.base import ConstantPredictor
from engine.sheet import Sheet
from trainers.dataset.good import read_dataset
from trainers.evaluation.evaluate import Judge, evaluate
from trainers.evaluation.report import Card, Facts, Gallery, Table, Text, Tile, Tiles, render, write_report
from trainers.evaluation.summary import write_evaluation
from trainers.progress import RecordedProgress

ESTIMATE = Estimate(
    target_fpr=0.05,
    how="k-fold",
    guarantee=False,
    n_images=40,
    folds=5,
    interval=(0.006, 0.132),
    note="made for a test",
)
CALIBRATION = Calibration(
    image=Scale(threshold=0.6, width=0.1),
    pixel=Scale(threshold=0.5, width=0.1),
    image_estimate=ESTIMATE,
    pixel_estimate=ESTIMATE,
)
JUDGE = Judge(ConstantPredictor().predict, Sheet(((32, 32),)), CALIBRATION)


class Page(HTMLParser):
    """Tags with attributes, and the text of the body."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self._hidden = [], "", False
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag in ("style", "title")

    def handle_data(self, data):
        if not self._hidden:
            self.text += data + " "

    def sources(self):
        return [attrs[key] for _, attrs in self.tags for key in ("src", "srcset", "href") if key in attrs]


def write_dataset(folder, spots, *, masks=True):
    """Pictures (kind, brightness of a spot 0..1); the spot is the defect."""
    for i, (kind, spot) in enumerate(spots):
        grey = np.full((40, 40), 40, np.uint8)
        grey[10:20, 12:24] = round(255 * spot)
        path = folder / f"test/{kind}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), grey)
        if masks and kind != "good":
            truth = folder / f"ground_truth/{kind}/{i}_mask.png"
            truth.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(truth), np.where(grey == grey[12, 14], 255, 0).astype(np.uint8))


def report_of(folder):
    evaluation = evaluate(JUDGE, read_dataset(folder), RecordedProgress())
    path = write_evaluation(folder / "out/report.html", "Screws", "fyd", evaluation, JUDGE)
    return Page(path.read_text(encoding="utf-8"))


def test_evaluation_report_stands_alone_and_says_the_numbers(tmp_path):
    spots = [("good", 0.2), ("good", 0.3), ("good", 0.9), ("dent", 0.8), ("dent", 0.4), ("deep_scratch", 1.0)]
    write_dataset(tmp_path, spots)
    page = report_of(tmp_path)
    assert all(source.startswith("data:image/") for source in page.sources())
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe")]
    assert "33.3 % 95 %: 0.8 % to 90.6 % 1 of 3 good pictures rejected. That fits the target of 5.0 %" in page.text
    assert "66.7 % 95 %: 9.4 % to 99.2 % 2 of 3 defective pictures rejected" in page.text
    assert "Of 3 defective pictures: 2 rejected, 1 passed. Of 3 good pictures: 1 rejected, 2 passed." in page.text
    assert "dent 2 50.0 % 0.667" in page.text  # one of two caught; 4 of 6 pairs with good ones in order
    assert "deep scratch 1 100.0 % 1.000" in page.text
    assert "k-fold, an estimate, from 40 good pictures (5 folds)" in page.text


def test_gallery_shows_false_alarms_misses_and_catches_worst_first(tmp_path):
    good = [("good", 0.7), ("good", 0.9), ("good", 0.1)]
    write_dataset(tmp_path, [*good, ("dent", 0.5), ("dent", 0.3), ("dent", 1.0), ("dent", 0.95), ("nick", 0.8)])
    page = report_of(tmp_path)
    parts = re.split("Worst false alarms|Worst misses|Best catches|How to read these figures", page.text)
    shown = [re.findall(r"(\w+/\d+\.png) (rejected|passed)", part) for part in parts[1:4]]
    assert shown[0] == [("good/1.png", "rejected"), ("good/0.png", "rejected")]
    assert shown[1] == [("dent/4.png", "passed"), ("dent/3.png", "passed")]
    assert shown[2] == [("dent/5.png", "rejected"), ("nick/7.png", "rejected"), ("dent/6.png", "rejected")]


def test_good_pictures_only_make_a_short_report(tmp_path):
    write_dataset(tmp_path, [("good", 0.1), ("good", 0.2)])
    page = report_of(tmp_path)
    assert "Closest calls among good pictures" in page.text
    for absent in ("misses", "Closest calls among defects", "Best catches", "By type of defect", "Image AUROC"):
        assert absent not in page.text


def test_a_rate_far_off_its_target_is_called_out(tmp_path):
    write_dataset(tmp_path, [("good", 0.9)] * 10 + [("good", 0.1)] * 10)
    assert "That does not fit the target of 5.0 %" in report_of(tmp_path).text


def test_sections_compose_and_text_is_escaped(tmp_path):
    image = np.zeros((20, 30, 3), np.uint8)
    sections = [
        Text("Words", ["one", "<b>two</b>"]),
        Tiles("Numbers", [Tile("Frames", "1,234", "judged", "good")], intro="so far"),
        Gallery("Pictures", [Card("cam1", "rejected", [("frame", image), ("mask", image)], "bad")], legend=True),
        Table("Rows", ("camera", "frames"), [("cam<1>", "5")]),
        Facts("Facts", [("Line", "line1")]),
    ]
    path = write_report(tmp_path / "deep/report.html", 'A "title" & more', "sub", sections)
    page = Page(path.read_text(encoding="utf-8"))
    assert "<b>" not in page.text.replace("<b>two</b>", "")
    assert "b" not in [tag for tag, _ in page.tags]
    for words in ('A "title" & more', "<b>two</b>", "1,234", "so far", "cam<1>", "line1"):
        assert words in page.text
    assert len([source for source in page.sources() if source.startswith("data:image/jpeg")]) == 2
    assert len(re.findall("url\\(data:image/png", path.read_text(encoding="utf-8"))) == 1


def test_legend_only_where_asked_for():
    image = np.zeros((20, 30, 3), np.uint8)
    plain = render("t", "s", [Gallery("g", [Card("c", "v", [("frame", image)])])])
    assert "threshold" not in Page(plain).text


@pytest.mark.parametrize("masks", [True, False])
def test_ground_truth_is_shown_where_there_is_some(tmp_path, masks):
    write_dataset(tmp_path, [("good", 0.1), ("dent", 0.9)], masks=masks)
    assert ("ground truth" in report_of(tmp_path).text) is masks
