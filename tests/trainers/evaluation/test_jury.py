"""Members, fusion and cascade side by side, against the same scores worked out by hand."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score

from engine.cascade import Limit
from engine.contract import Calibration, Estimate, Scale
from engine.interest import View
from engine.serving.base import RawBatch
from engine.serving.ensemble import Cascade
from engine.sheet import Sheet
from trainers.dataset.good import read_dataset
from trainers.evaluation.evaluate import Judge, evaluate
from trainers.evaluation.jury import Juror, Jury, compare
from trainers.evaluation.summary import write_evaluation
from trainers.progress import RecordedProgress

ESTIMATE = Estimate(
    target_fpr=0.05, how="k-fold", guarantee=False, n_images=40, folds=5, interval=(0.0, 0.1), note="made for a test"
)


def calibration(threshold, review=None):
    scale = Scale(threshold=threshold, width=0.1)
    return Calibration(scale, scale, ESTIMATE, ESTIMATE, review)


class Pair:
    """An ensemble of two: how bright the brightest pixel is, and the darkest; their mean is the fused score."""

    def __init__(self):
        self.runs = {"bright": 0, "dark": 0}

    def screen(self, images):
        self.runs["bright"] += len(images)
        maps = images.mean(axis=3, dtype=np.float32) / np.float32(255)
        scores = maps.max(axis=(1, 2)).astype(np.float64)
        return RawBatch(scores, maps, {"bright": scores})

    def complete(self, images, first):
        self.runs["dark"] += len(images)
        dark = 1 - images.min(axis=(1, 2, 3)) / 255
        maps = (first.maps + dark[:, None, None].astype(np.float32)) / 2
        return RawBatch((first.scores + dark) / 2, maps, {**first.members, "dark": dark})

    def predict(self, images):
        return self.complete(images, self.screen(images))


LIMIT = Limit(0.55, 0.002, "conformal", 600)
LEVEL, REJECT = 0.6, 0.7
MEMBERS = {"bright": Juror(calibration(0.75), 2.0), "dark": Juror(calibration(0.65), 10.0)}
REST_MS = 7.0  # the second member goes on from the first one's network


@pytest.fixture(name="data")
def a_folder(tmp_path):
    """24 good and 16 defective pictures, flat but for a bright and a dark spot; those of defects have masks."""
    rng = np.random.default_rng(2)
    for i in range(40):
        kind = "good" if i < 24 else ("dent", "nick")[i % 2]
        image = np.full((32, 32), 100, np.uint8)
        image[4:9, 4:9] = rng.integers(110, 170 if kind == "good" else 250)
        image[20:25, 20:25] = rng.integers(45, 99) if kind == "good" else rng.integers(0, 75)
        for name, pixels in (
            (f"test/{kind}/{i}.png", image),
            (f"ground_truth/{kind}/{i}_mask.png", 255 * (image != 100)),
        ):
            if kind != "good" or name.startswith("test"):
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(tmp_path / name), pixels.astype(np.uint8))
    return tmp_path


def jury(pair, cascade=True):
    judge = Judge(pair.predict, Sheet(((32, 32),)), calibration(REJECT, LEVEL))
    return Jury(judge, MEMBERS, REST_MS, Cascade(pair, LIMIT) if cascade else None)


def by_hand(data):
    """Truth, and the scores of both members, of their mean and of the cascade; which exit; in the dataset's order."""
    items = read_dataset(data).test
    images = [cv2.imread(str(item.path), cv2.IMREAD_GRAYSCALE) for item in items]
    bright = np.array([image.max() / 255 for image in images])
    dark = np.array([1 - image.min() / 255 for image in images])
    fused, exits = (bright + dark) / 2, bright <= LIMIT.surprise
    truth = np.array([item.defect is not None for item in items])
    return truth, {"bright": bright, "dark": dark, "fused": fused, "cascade": np.where(exits, bright, fused)}, exits


def test_every_row_is_that_of_its_own_scores(data):
    pair = Pair()
    document = compare(jury(pair), read_dataset(data), RecordedProgress()).document()
    assert json.loads(json.dumps(document)) == document
    truth, scores, _ = by_hand(data)
    assert pair.runs == {"bright": 40, "dark": 40}  # nothing runs twice
    ensemble = document["ensemble"]
    rows = ensemble["members"] | {"fused": ensemble["fused"], "cascade": ensemble["cascade"]}
    for (name, row), threshold in zip(rows.items(), (0.75, 0.65, REJECT, REJECT), strict=True):
        rejected = scores[name] >= threshold
        assert row["image_AUROC"] == pytest.approx(roc_auc_score(truth, scores[name]))
        assert row["f1"] == pytest.approx(f1_score(truth, rejected))
        assert row["recall"] == pytest.approx(rejected[truth].mean())
        assert row["false_alarm_rate"] == pytest.approx(rejected[~truth].mean())
        interval = stats.binomtest(int(rejected[truth].sum()), 16).proportion_ci(0.95, "exact")
        assert row["intervals"]["recall"] == pytest.approx([interval.low, interval.high])
        low, high = row["intervals"]["image_AUROC"]
        assert low < row["image_AUROC"] < high
        assert (row["pixel_AUROC"] is None) == (name in MEMBERS)
    assert len({row["image_AUROC"] for row in rows.values()}) == 4


def test_the_fused_row_is_the_ensembles_own_evaluation(data):
    pair = Pair()
    found = compare(jury(pair), read_dataset(data), RecordedProgress())
    assert found.fused.document() == evaluate(jury(pair).judge, read_dataset(data), RecordedProgress()).document()
    without = compare(jury(pair, cascade=False), read_dataset(data), RecordedProgress()).document()
    assert without["ensemble"].pop("cascade") is None
    whole = found.document()
    del whole["ensemble"]["cascade"]
    assert without == whole


def test_what_exits_and_what_that_changes_is_counted(data):
    document = compare(jury(Pair()), read_dataset(data), RecordedProgress()).document()["ensemble"]["cascade"]
    truth, scores, exits = by_hand(data)
    wrong = exits & (scores["fused"] >= LEVEL)
    assert 0 < wrong[truth].sum() <= exits[truth].sum() < 16
    assert 0 < wrong[~truth].sum() < exits[~truth].sum() < 24
    for kind, those in (("good", ~truth), ("defective", truth)):
        assert document[kind]["n"] == those.sum()
        assert document[kind]["exits"] == pytest.approx(exits[those].mean())
        assert document[kind]["disagreement"] == pytest.approx(wrong[those].mean())
    assert (document["bound"], document["how"], document["frames"]) == (0.002, "conformal", 600)
    escalated = 0.99 * (~exits[~truth]).mean() + 0.01 * (~exits[truth]).mean()
    assert document["cost_ms"] == pytest.approx(2 + REST_MS * escalated)


def test_the_cascades_map_is_the_first_members_where_that_decides(data):
    comparison = compare(jury(Pair()), read_dataset(data), RecordedProgress())
    found, whole = comparison.cascade.evaluation, comparison.fused
    exits = by_hand(data)[2]
    pixels, labels = [], []
    for item, out in zip(read_dataset(data).test, exits, strict=True):
        image = cv2.imread(str(item.path), cv2.IMREAD_GRAYSCALE) / 255
        pixels.append(image if out else (image + 1 - image.min()) / 2)
        labels.append((image != 100 / 255) & (item.defect is not None))
    expected = roc_auc_score(np.ravel(labels), np.ravel(pixels))
    assert found.overall.pixel_auroc == pytest.approx(expected, abs=1e-3)  # maps are in steps
    assert abs(found.overall.pixel_auroc - whole.overall.pixel_auroc) > 0.05


def test_only_good_pictures_leave_what_needs_defects_open(data):
    good = compare(jury(Pair()), read_dataset(data / "test/good"), RecordedProgress()).document()["ensemble"]
    assert good["cascade"]["defective"] == {"n": 0, "exits": None, "disagreement": None, "disagreement_interval": None}
    assert good["members"]["bright"]["image_AUROC"] is None
    assert good["members"]["bright"]["intervals"]["recall"] is None


def test_the_page_says_it_in_words(data):
    asked = jury(Pair())
    found = compare(asked, read_dataset(data), RecordedProgress())
    page = write_evaluation(data / "report.html", "Pair", "", found.fused, asked.judge, found).read_text()
    truth, scores, exits = by_hand(data)
    wrong = exits & (scores["fused"] >= LEVEL)
    passed = (scores["fused"][truth] < LEVEL).sum()
    rejected = (scores["fused"][truth] >= REJECT).sum()
    short = f"Of 16 defective pictures: {rejected} rejected, {16 - rejected - passed} sent to review, {passed} passed."
    assert short in page
    for words in (
        "bright alone",
        "all, fused",
        f"{exits[~truth].sum()} of 24 were settled by bright alone; dark did not have to run.",
        f"{wrong[~truth].sum()} of 24 passed early though all members together would not have passed them.",
        f"Of 16 defective pictures {exits[truth].sum()} were settled early as good; {wrong[truth].sum()} of these",
        "guaranteed in the mean on 600 good frames",
        "A member alone publishes none.",
        "PRO curve",
    ):
        assert words in page
    assert "Region of interest" not in page


def test_a_region_of_interest_narrows_what_is_fused_and_is_owned_up_to(data):
    counts = np.zeros((32, 32), bool)
    counts[28:, 28:] = True  # where there is no spot
    asked = jury(Pair())
    asked = replace(asked, judge=replace(asked.judge, view=lambda size: View(counts)))
    found = compare(asked, read_dataset(data), RecordedProgress())
    whole = compare(jury(Pair()), read_dataset(data), RecordedProgress())
    assert found.members["bright"].pictures == whole.members["bright"].pictures
    assert found.fused.overall.recall < whole.fused.overall.recall
    page = write_evaluation(data / "report.html", "Pair", "", found.fused, asked.judge, found).read_text()
    assert "that is judged by whole pictures" in page
