"""Evaluations on small datasets, where brightness is the anomaly, against scikit-learn on the same pictures."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from engine.contract import Calibration, Estimate, Scale
from engine.errors import DataError
from engine.interest import View
from engine.serving.base import ConstantPredictor
from engine.sheet import Sheet
from trainers.dataset.good import read_dataset
from trainers.evaluation.evaluate import Judge, evaluate, look
from trainers.progress import RecordedProgress

KEYS = {
    "image_AUROC",
    "pixel_AUROC",
    "pixel_AUPRO",
    "f1",
    "false_alarm_rate",
    "target_fpr",
    "recall",
    "intervals",
    "bootstrap",
    "n_good",
    "n_defect",
    "per_defect",
}
ESTIMATE = Estimate(
    target_fpr=0.05, how="k-fold", guarantee=False, n_images=40, folds=5, interval=(0.0, 0.1), note="made for a test"
)
CALIBRATION = Calibration(
    image=Scale(threshold=0.6, width=0.1),
    pixel=Scale(threshold=0.4, width=0.1),
    image_estimate=ESTIMATE,
    pixel_estimate=ESTIMATE,
)
JUDGE = Judge(ConstantPredictor().predict, Sheet(((32, 32),)), CALIBRATION)


def picture(rng, spot: float, size=(48, 40)):
    """Dark noise with a square spot of a brightness (0..1), and where the spot is."""
    grey = rng.uniform(0, 0.45, size)
    mask = np.zeros(size, np.uint8)
    y, x = rng.integers(0, size[0] - 12), rng.integers(0, size[1] - 12)
    mask[y : y + 12, x : x + 12] = 255
    grey[mask > 0] = spot
    return (255 * grey).round().astype(np.uint8), mask


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


@pytest.fixture(name="folder")
def a_folder(tmp_path):
    """Six good pictures (one too bright), five dents and four scratches of several sizes, all with masks."""
    rng = np.random.default_rng(0)
    for i, spot in enumerate((0.1, 0.3, 0.2, 0.4, 0.7, 0.3)):
        write(tmp_path / f"test/good/{i}.png", picture(rng, spot)[0])
    for kind, spots in (("dent", (0.5, 0.7, 0.8, 0.9, 1.0)), ("scratch", (0.35, 0.65, 0.9, 0.55))):
        for i, spot in enumerate(spots):
            grey, mask = picture(rng, spot, size=(48 + 8 * i, 40))
            write(tmp_path / f"test/{kind}/{i}.png", grey)
            write(tmp_path / f"ground_truth/{kind}/{i}_mask.png", mask)
    return tmp_path


def test_document_matches_scikit_learn(folder):
    dataset = read_dataset(folder)
    evaluation = evaluate(JUDGE, dataset, RecordedProgress())
    document = evaluation.document()
    assert set(document) == KEYS
    assert json.loads(json.dumps(document)) == document
    sights = list(look(JUDGE, dataset.test))
    truth = [s.judged.defect is not None for s in sights]
    scores = [s.judged.raw_score for s in sights]
    labels = [s.judged.pred_score >= 0.5 for s in sights]
    assert document["image_AUROC"] == pytest.approx(roc_auc_score(truth, scores))
    assert document["f1"] == pytest.approx(f1_score(truth, labels))
    assert document["false_alarm_rate"] == pytest.approx(1 / 6)
    assert (document["n_good"], document["n_defect"], document["target_fpr"]) == (6, 9, 0.05)
    masks = [np.zeros(s.values.shape, bool) if s.mask is None else s.mask for s in sights]
    pixels = np.concatenate([s.values.ravel() for s in sights])
    assert document["pixel_AUROC"] == pytest.approx(roc_auc_score(np.concatenate([m.ravel() for m in masks]), pixels))
    assert 0.8 < document["pixel_AUPRO"] <= 1


def test_each_defect_is_measured_against_all_good_pictures(folder):
    dataset = read_dataset(folder)
    document = evaluate(JUDGE, dataset, RecordedProgress()).document()
    assert set(document["per_defect"]) == {"dent", "scratch"}
    sights = [s for s in look(JUDGE, dataset.test) if s.judged.defect in (None, "dent")]
    truth = [s.judged.defect is not None for s in sights]
    masks = [np.zeros(s.values.shape, bool) if s.mask is None else s.mask for s in sights]
    pixels = np.concatenate([s.values.ravel() for s in sights])
    dent = document["per_defect"]["dent"]
    assert dent["n"] == 5
    assert dent["recall"] == pytest.approx(4 / 5)
    assert dent["image_AUROC"] == pytest.approx(roc_auc_score(truth, [s.judged.raw_score for s in sights]))
    assert dent["pixel_AUROC"] == pytest.approx(roc_auc_score(np.concatenate([m.ravel() for m in masks]), pixels))


def test_maps_are_of_the_pictures_own_size_and_on_the_calibrated_scale(folder):
    sight = next(look(JUDGE, [i for i in read_dataset(folder).test if i.name == "test/dent/4.png"]))
    assert sight.values.shape == sight.mask.shape == sight.image.shape[:2] == (80, 40)
    inside = cv2.erode(sight.mask.astype(np.uint8), np.ones((5, 5))) > 0
    expected = 0.5 + 0.5 * 6 / 7  # a white spot lies (1 - 0.4) / 0.1 = 6 widths above the pixel threshold
    assert sight.values[inside].mean() / 65535 == pytest.approx(expected, abs=0.02)
    assert sight.judged.rejected
    assert sight.judged.right


def test_without_masks_pixel_metrics_are_null(folder):
    for mask in folder.glob("ground_truth/*/*.png"):
        mask.unlink()
    document = evaluate(JUDGE, read_dataset(folder), RecordedProgress()).document()
    assert document["pixel_AUROC"] is None
    assert document["pixel_AUPRO"] is None
    assert document["image_AUROC"] is not None
    assert document["per_defect"]["dent"]["pixel_AUROC"] is None


def test_defects_without_a_mask_are_left_out_of_pixel_metrics(folder):
    whole = evaluate(JUDGE, read_dataset(folder), RecordedProgress()).document()
    for mask in folder.glob("ground_truth/scratch/*.png"):
        mask.unlink()
    part = evaluate(JUDGE, read_dataset(folder), RecordedProgress()).document()
    assert part["pixel_AUROC"] == pytest.approx(whole["per_defect"]["dent"]["pixel_AUROC"])
    assert part["per_defect"]["scratch"]["pixel_AUROC"] is None
    assert part["image_AUROC"] == whole["image_AUROC"]


def test_plain_folder_counts_false_alarms_only(tmp_path):
    rng = np.random.default_rng(1)
    for i in range(10):
        write(tmp_path / f"{i}.png", picture(rng, 0.9 if i < 2 else 0.2)[0])
    document = evaluate(JUDGE, read_dataset(tmp_path), RecordedProgress()).document()
    assert document["false_alarm_rate"] == pytest.approx(0.2)
    assert (document["n_good"], document["n_defect"], document["per_defect"]) == (10, 0, {})
    assert document["image_AUROC"] is document["pixel_AUROC"] is document["f1"] is None


def test_only_defects(folder):
    for good in folder.glob("test/good/*.png"):
        good.unlink()
    evaluation = evaluate(JUDGE, read_dataset(folder), RecordedProgress())
    assert evaluation.false_alarm_rate is None
    assert evaluation.overall.image_auroc is None
    assert evaluation.overall.recall == pytest.approx(6 / 9)


def test_pictures_are_judged_in_batches_at_the_input_size_and_order_is_kept(folder):
    shapes = []

    def predict(images):
        shapes.append(images.shape)
        return ConstantPredictor().predict(images)

    progress = RecordedProgress()
    evaluation = evaluate(Judge(predict, Sheet(((16, 24),)), CALIBRATION), read_dataset(folder), progress)
    assert shapes == [(8, 16, 24, 3), (7, 16, 24, 3)]
    assert [p.item.name for p in evaluation.pictures] == [i.name for i in read_dataset(folder).test]
    assert progress.advances[-1][:2] == ("evaluate", 15)


def test_nothing_to_judge_or_an_unreadable_picture(folder, tmp_path_factory):
    (folder / "test/good/3.png").write_text("text")
    with pytest.raises(DataError, match=r"test/good/3\.png: cannot be read"):
        evaluate(JUDGE, read_dataset(folder), RecordedProgress())
    trained = tmp_path_factory.mktemp("trained")
    write(trained / "train/good/0.png", np.zeros((20, 20), np.uint8))
    with pytest.raises(DataError, match="no test pictures"):
        evaluate(JUDGE, read_dataset(trained), RecordedProgress())


def test_a_region_of_interest_bounds_scores_and_maps(folder):
    items = read_dataset(folder).test
    whole = list(look(JUDGE, items))
    upper = lambda size: View(np.arange(size[0])[:, None] + np.zeros(size) < size[0] // 2)  # noqa: E731
    for full, seen in zip(whole, look(replace(JUDGE, view=upper), items), strict=True):
        half = seen.image.shape[0] // 2
        assert seen.judged.raw_score <= full.judged.raw_score
        np.testing.assert_array_equal(seen.values[:half], full.values[:half])
        assert not seen.values[half:].any()
        brightest = ConstantPredictor().predict(JUDGE.sheet.fit(seen.image)[None]).maps[0][:16].max()
        assert seen.judged.raw_score == pytest.approx(brightest)
