import cv2
import numpy as np
import pytest

from engine.contract import Calibration, Estimate, Scale
from engine.decide import (
    MAX_REGIONS,
    calibrated_score,
    decide,
    mask_of,
    pixel_scores,
    quantised,
    regions_of,
    verdict,
    with_thresholds,
)
from engine.interest import View

ESTIMATE = Estimate(
    target_fpr=0.01, how="k-fold", guarantee=False, n_images=200, folds=10, interval=(0.0, 0.03), note="a test"
)


def calibration(image=10.0, pixel=8.0, review=None):
    return Calibration(
        image=Scale(threshold=image, width=1.0),
        pixel=Scale(threshold=pixel, width=0.5),
        image_estimate=ESTIMATE,
        pixel_estimate=ESTIMATE,
        review=review,
    )


def spotted(*spots, height=64, width=64, background=1.0):
    """A raw map with square spots (row, column, side, value) on an even background."""
    grid = np.full((height, width), background, np.float32)
    for row, column, side, value in spots:
        grid[row : row + side, column : column + side] = value
    return grid


def test_the_threshold_is_exactly_one_half_and_counts_as_anomalous():
    at = decide(10.0, spotted(), calibration(), (64, 64))
    below = decide(float(np.nextafter(10.0, 0)), spotted(), calibration(), (64, 64))
    assert (at.pred_score, at.pred_label, at.decision) == (0.5, True, "reject")
    assert below.pred_score < 0.5
    assert (below.pred_label, below.decision) == (False, "good")


def test_calibrated_scores_keep_the_order_of_raw_ones_far_from_the_threshold():
    raw = np.concatenate([np.linspace(-1e4, 1e4, 20001), [1e6, 2e6, 1e7]])
    scores = [decide(r, spotted(), calibration(), (64, 64)).pred_score for r in raw]
    assert np.all(np.diff(scores) > 0)
    assert 0 < scores[0] < scores[-1] < 1


def test_review_lies_between_its_own_threshold_and_reject():
    two = calibration(review=7.0)
    assert [decide(r, spotted(), two, (64, 64)).decision for r in (6.9, 7.0, 9.9, 10.0)] == [
        "good",
        "review",
        "review",
        "reject",
    ]


def test_map_mask_and_regions_take_the_size_of_the_frame():
    decision = decide(12.0, spotted((16, 32, 8, 20.0)), calibration(), (128, 192))
    assert decision.anomaly_map.shape == decision.pred_mask.shape == (128, 192)
    assert decision.anomaly_map.dtype == np.uint16
    (region,) = decision.regions
    x, y, w, h = region.bbox
    assert (x, y) == pytest.approx((96, 32), abs=2)
    assert (w, h) == pytest.approx((24, 16), abs=4)
    assert region.area == np.count_nonzero(decision.pred_mask)


def test_mask_is_the_map_from_32768_on():
    decision = decide(12.0, spotted((5, 5, 20, 9.0)), calibration(), (50, 70))
    np.testing.assert_array_equal(decision.pred_mask == 255, decision.anomaly_map >= 32768)
    assert set(np.unique(decision.pred_mask)) == {0, 255}


def test_mask_and_quantised_map_agree_next_to_the_threshold():
    half = np.float32(0.5)
    near = np.array([[np.nextafter(half, np.float32(0)), half, np.nextafter(half, np.float32(1))]], np.float32)
    np.testing.assert_array_equal(mask_of(near) == 255, quantised(near) >= 32768)


def test_pixel_values_are_rounded_calibrated_scores():
    raw = np.random.default_rng(0).gamma(3.0, 3.0, (32, 32)).astype(np.float32)
    scores = calibration().pixel.calibrated(raw.astype(np.float64))
    values = quantised(pixel_scores(raw, calibration(), (32, 32)))
    np.testing.assert_allclose(values, 65535 * scores, atol=0.51)


def test_regions_are_ordered_by_their_peak_and_equal_opencv_components():
    raw = spotted((2, 2, 4, 9.0), (20, 20, 6, 30.0), (40, 10, 3, 12.0))
    scores = pixel_scores(raw, calibration(), (64, 64))
    regions = regions_of(scores, mask_of(scores))
    assert [region.bbox for region in regions] == [(20, 20, 6, 6), (10, 40, 3, 3), (2, 2, 4, 4)]
    assert [region.area for region in regions] == [36, 9, 16]
    assert [region.score for region in regions] == [
        pytest.approx(scores[y, x]) for x, y in ((20, 20), (10, 40), (2, 2))
    ]
    assert cv2.connectedComponents(mask_of(scores))[0] - 1 == len(regions)


def test_at_most_32_regions_the_highest():
    spots = [(8 * (i // 8), 8 * (i % 8), 2, 9.0 + i) for i in range(50)]
    scores = pixel_scores(spotted(*spots, height=64, width=64), calibration(), (64, 64))
    regions = regions_of(scores, mask_of(scores))
    assert len(regions) == MAX_REGIONS
    assert regions[0].bbox[:2] == (8 * (49 % 8), 8 * (49 // 8))


@pytest.mark.parametrize(
    ("raw_score", "want", "given"),
    [
        (12.0, "always", True),
        (12.0, "anomalous", True),
        (12.0, "never", False),
        (3.0, "always", True),
        (3.0, "anomalous", False),
        (3.0, "never", False),
    ],
)
def test_map_and_mask_are_given_only_where_wanted(raw_score, want, given):
    decision = decide(raw_score, spotted((5, 5, 5, 3.0)), calibration(), (64, 64), want_map=want, want_mask=want)
    assert (decision.anomaly_map is not None) == given
    assert (decision.pred_mask is not None) == given


def test_regions_do_not_depend_on_what_is_published():
    raw = spotted((5, 5, 5, 9.0))
    full = decide(3.0, raw, calibration(), (64, 64), want_map="always", want_mask="always")
    bare = decide(3.0, raw, calibration(), (64, 64), want_map="never", want_mask="never")
    assert full.regions == bare.regions
    assert len(full.regions) == 1
    assert full.pred_label is False  # the label does not depend on the mask


def test_thresholds_can_be_moved_without_retraining(calibration):
    """Both are given on the scale of the bundle; scores are then counted from the new reject threshold."""
    moved = with_thresholds(calibration, review=0.4, reject=0.7)
    raw = {0.39: "good", 0.41: "review", 0.69: "review", 0.71: "reject"}
    for score, expected in raw.items():
        at = calibration.image.raw(score)
        label = calibrated_score(at, moved) >= 0.5
        assert verdict(at, label, moved) == expected
    assert calibrated_score(calibration.image.raw(0.7), moved) == pytest.approx(0.5)
    assert moved.pixel == calibration.pixel
    assert moved.not_good_from == pytest.approx(calibration.image.raw(0.4))
    assert with_thresholds(calibration, None, None) == calibration
    assert calibration.not_good_from == calibration.image.threshold
    with pytest.raises(ValueError, match=r"below the reject threshold 0\.3, got 0\.4"):
        with_thresholds(calibration, review=0.4, reject=0.3)


def half(size=(64, 64)):
    """The left half of pictures counts."""
    pixels = np.zeros(size, bool)
    pixels[:, : size[1] // 2] = True
    return View(pixels)


def test_only_the_view_counts_where_the_score_is_the_maximum():
    raw = spotted((10, 10, 4, 9.5), (30, 50, 6, 30.0))
    whole = decide(30.0, raw, calibration(), (64, 64))
    seen = decide(30.0, raw, calibration(), (64, 64), view=half())
    assert (whole.decision, seen.decision, seen.raw_score) == ("reject", "good", 9.5)
    assert [region.bbox for region in seen.regions] == [(10, 10, 4, 4)]
    np.testing.assert_array_equal(seen.anomaly_map[:, :32], whole.anomaly_map[:, :32])
    assert not seen.anomaly_map[:, 32:].any()
    np.testing.assert_array_equal(seen.pred_mask == 255, seen.anomaly_map >= 32768)


def test_a_view_never_raises_a_score_and_all_of_the_picture_changes_none():
    random = np.random.default_rng(5)
    for _ in range(50):
        raw = random.normal(8, 2, (16, 16)).astype(np.float32)
        view = View(random.random((40, 40)) < random.random())
        for score in (float(raw.max()), float(random.normal(10, 3))):
            seen = decide(score, raw, calibration(), (40, 40), view=view).raw_score
            assert seen <= score
        assert decide(float(raw.max()), raw, calibration(), (40, 40), view=View(np.ones((40, 40), bool))).raw_score == (
            raw.max()
        )


def test_a_score_of_its_own_counts_as_far_as_the_mask_bears_it_out():
    """The lower of score and peak on their calibrated scales; 20 is no map's maximum here."""
    for peak, decision in ((7.9, "good"), (8.1, "reject")):
        raw = spotted((10, 10, 4, peak), (30, 50, 6, 30.0))
        seen = decide(20.0, raw, calibration(), (64, 64), view=half())
        assert seen.decision == decision
        assert seen.pred_score == pytest.approx(calibration().pixel.calibrated(np.float64(np.float32(peak))), rel=1e-6)
        assert bool(seen.regions) == (decision == "reject")
    assert decide(5.0, spotted((10, 10, 4, 30.0)), calibration(), (64, 64), view=half()).raw_score == 5.0
