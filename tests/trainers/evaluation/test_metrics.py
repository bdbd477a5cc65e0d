"""Metrics against scikit-learn and against a brute-force float64 reading of their definitions."""

import itertools

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import f1_score, roc_auc_score

from trainers.evaluation.metrics import PixelMeter, f1, image_auroc, image_roc


def scene(rng, shape=(24, 30), regions=3, strength=9000.0):
    """A map of levels with anomalous rectangles of very different sizes, and its ground truth."""
    mask = np.zeros(shape, bool)
    for _ in range(regions):
        y, x = rng.integers(0, shape[0] - 2), rng.integers(0, shape[1] - 2)
        mask[y : y + rng.integers(1, 14), x : x + rng.integers(1, 14)] = True
    values = rng.normal(20000, 6000, shape) + strength * mask * rng.random()
    return (np.clip(values, 0, 65535) // 32 * 32).astype(np.uint16), mask


def brute_aupro(maps, masks, limit=0.3):
    """One threshold at a time: mean overlap over 8-connected regions against false pixels, trapezoids up to limit."""
    regions = []
    for values, mask in zip(maps, masks, strict=True):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [values[labels == i].astype(np.float64) for i in range(1, count + 1)]
    free = np.concatenate([values[~mask] for values, mask in zip(maps, masks, strict=True)]).astype(np.float64)
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([v.ravel() for v in maps]))[::-1]:
        overlap = np.mean([(region >= threshold).mean() for region in regions])
        points.append(((free >= threshold).mean(), overlap))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x1 > limit:
            cut = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            area += (limit - x0) * (y0 + cut) / 2
            break
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def metered(maps, masks):
    meter = PixelMeter()
    for values, mask in zip(maps, masks, strict=True):
        meter.add(values, mask if mask.any() else None)
    return meter


@pytest.mark.parametrize("seed", range(4))
def test_pixel_metrics_match_their_definitions(seed):
    rng = np.random.default_rng(seed)
    maps, masks = zip(*(scene(rng, shape=(24 + 3 * i, 30), regions=i) for i in range(4)), strict=True)
    meter = metered(maps, masks)
    truth = np.concatenate([mask.ravel() for mask in masks])
    pixels = np.concatenate([values.ravel() for values in maps])
    assert meter.auroc() == pytest.approx(roc_auc_score(truth, pixels), abs=1e-12)
    assert meter.aupro() == pytest.approx(brute_aupro(maps, masks), abs=1e-12)
    assert meter.aupro(1.0) == pytest.approx(brute_aupro(maps, masks, 1.0), abs=1e-12)


def test_ties_count_half():
    rng = np.random.default_rng(0)
    maps = [(rng.integers(0, 4, (30, 30)) * 1000).astype(np.uint16) for _ in range(3)]
    masks = [rng.random((30, 30)) > 0.9 for _ in maps]
    truth = np.concatenate([mask.ravel() for mask in masks])
    pixels = np.concatenate([values.ravel() for values in maps])
    meter = metered(maps, masks)
    assert meter.auroc() == pytest.approx(roc_auc_score(truth, pixels), abs=1e-12)
    assert meter.aupro() == pytest.approx(brute_aupro(maps, masks), abs=1e-12)


def test_regions_touching_at_a_corner_are_one():
    mask = np.zeros((10, 10), bool)
    mask[2, 2] = mask[3, 3] = mask[3, 4] = True
    values = np.zeros((10, 10), np.uint16)
    values[2, 2] = 60000
    assert metered([values], [mask]).aupro() == pytest.approx(brute_aupro([values], [mask]), abs=1e-12)
    assert metered([values], [mask]).aupro() == pytest.approx(1 / 3 + 0.3 * 2 / 3 / 2, abs=1e-12)


def test_a_small_region_weighs_as_much_as_a_large_one():
    mask = np.zeros((50, 50), bool)
    mask[0, 0] = True
    mask[10:40, 10:40] = True
    found_small, found_large = (np.zeros((50, 50), np.uint16) for _ in range(2))
    found_small[0, 0] = 60000
    found_large[10:40, 10:40] = 60000
    small, large = metered([found_small], [mask]), metered([found_large], [mask])
    assert small.aupro() == pytest.approx(large.aupro())
    assert large.auroc() > small.auroc() + 0.4


def test_extreme_maps():
    mask = np.zeros((20, 20), bool)
    mask[5:9, 5:9] = True
    perfect = np.where(mask, 50000, 10).astype(np.uint16)
    constant = np.full((20, 20), 7, np.uint16)
    assert metered([perfect], [mask]).aupro() == pytest.approx(1)
    assert metered([perfect], [mask]).auroc() == pytest.approx(1)
    assert metered([constant], [mask]).aupro() == pytest.approx(0.15)
    assert metered([constant], [mask]).auroc() == pytest.approx(0.5)
    assert metered([65535 - perfect], [mask]).aupro() == pytest.approx(0, abs=1e-9)


def test_meters_add_up():
    rng = np.random.default_rng(5)
    maps, masks = zip(*(scene(rng, regions=i % 3) for i in range(6)), strict=True)
    total = PixelMeter.total([metered(maps[:2], masks[:2]), metered(maps[2:], masks[2:])])
    assert total.aupro() == pytest.approx(metered(maps, masks).aupro(), abs=1e-12)
    assert total.auroc() == pytest.approx(metered(maps, masks).auroc(), abs=1e-12)


def test_pixel_metrics_without_anomalies_are_undefined():
    meter = PixelMeter()
    assert meter.auroc() is None
    meter.add(np.zeros((4, 4), np.uint16), None)
    meter.add(np.zeros((4, 4), np.uint16), np.zeros((4, 4), bool))
    assert meter.auroc() is None
    assert meter.aupro() is None
    everything = PixelMeter()
    everything.add(np.zeros((4, 4), np.uint16), np.ones((4, 4), bool))
    assert everything.aupro() is None


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"mask of the map's shape \(4, 4\), got \(4, 5\)"):
        PixelMeter().add(np.zeros((4, 4), np.uint16), np.zeros((4, 5), bool))


def test_image_metrics():
    rng = np.random.default_rng(0)
    good, bad = rng.normal(0, 1, 50), rng.normal(1, 1, 70)
    truth = np.r_[np.zeros(50), np.ones(70)]
    assert image_auroc(good, bad) == pytest.approx(np.mean(good[:, None] < bad[None]))
    assert f1(good > 0.5, bad > 0.5) == pytest.approx(f1_score(truth, np.r_[good, bad] > 0.5))
    fpr, tpr = image_roc(good, bad)
    assert np.diff(fpr) @ (tpr[1:] + tpr[:-1]) / 2 == pytest.approx(image_auroc(good, bad))
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)


def test_image_metrics_without_defects_or_without_good_pictures():
    none, some = np.empty(0), np.array([1.0, 2.0])
    assert image_auroc(none, some) is None
    assert image_auroc(some, none) is None
    assert f1(some > 1, none > 1) is None
    assert f1(none > 1, some > 5) == 0
