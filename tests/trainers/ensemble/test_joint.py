"""Joining held-out pictures of several members, and the false-alarm rate that the fused threshold keeps."""

import numpy as np
import pytest

from engine.errors import DataError
from engine.fusion import fuse
from engine.maps import MapHead
from trainers.calibration.record import Record
from trainers.calibration.thresholds import Split, level_of, resplit_check
from trainers.ensemble import copula
from trainers.ensemble.joint import FOLDS, How, fuse_jointly, join

HEAD = MapHead((2, 2), 4, 4, 0.0)
HOW = How("mean", (1.0, 1.0, 1.0), (4, 4))


def scores_of(n, seed):
    """(3, n) raw scores of three correlated members, of very different scales and laws."""
    random = np.random.default_rng(seed)
    hidden = 0.6 * random.normal(size=n) + 0.8 * random.normal(size=(3, n))
    return np.array([12 + hidden[0], np.exp(hidden[1]) * 1e-3, 5 * (hidden[2] + 4) ** 2])


def records_of(scores, first=0):
    """Records whose maps have the picture's score as their peak."""
    contents = tuple(f"{first + i:064x}" for i in range(scores.shape[1]))
    shape = np.array([[1.0, 0.6], [0.3, 0.8]])
    return [Record(contents, each, (each[:, None, None] * shape).astype(np.float16), HEAD) for each in scores]


@pytest.mark.parametrize("target", [0.05, 0.01, 0.005])
@pytest.mark.parametrize("folds", [1, 20])
def test_the_fused_false_alarm_rate_is_the_target(target, folds):
    """Pooled over draws, inside the beta-binomial interval: too few false alarms fail as well as too many."""
    splits = []
    for seed in range(8):
        found = fuse_jointly(join("abc", records_of(scores_of(400, seed))), HOW, folds, target)
        new = scores_of(3000, 1000 + seed)
        fused = fuse([tail.of(raw) for tail, raw in zip(found.scales.image, new, strict=True)], HOW.weights, "mean")
        alarms = int((found.calibration.image.calibrated(fused) >= 0.5).sum())
        splits.append(Split(found.calibration.image_estimate.n_images, 3000, alarms))
    check = resplit_check(splits, target)
    assert check.passed, check


def test_enough_pictures_that_nobody_learnt_from_make_a_guarantee():
    joint = join("abc", records_of(scores_of(400, 0)))
    held_out = fuse_jointly(joint, HOW, 1, 0.01).calibration
    assert (held_out.image_estimate.how, held_out.image_estimate.guarantee) == ("split-conformal", True)
    assert held_out.image_estimate.n_images == 200  # the other half fits the tails
    folds = fuse_jointly(joint, HOW, 20, 0.01).calibration
    assert (folds.image_estimate.how, folds.image_estimate.guarantee) == ("k-fold", False)
    few = fuse_jointly(joint, HOW, 1, 0.003).calibration
    assert (few.image_estimate.guarantee, few.image_estimate.n_images) == (False, 400)


def test_a_picture_is_judged_by_tails_that_it_did_not_shape():
    """Moving one picture's scores far out must not change how surprising it was found to be by more than its own."""
    scores = scores_of(100, 0)
    scores[:, 5] = [40.0, 1.0, 4000.0]
    found = fuse_jointly(join("abc", records_of(scores)), HOW, 20, 0.05)
    without = join("abc", records_of(np.delete(scores, np.arange(10), axis=1))).scales(np.arange(90))
    want = np.mean([tail.of(scores[m, 5:6]) for m, tail in enumerate(without.image)])
    assert found.good.fused[5] == pytest.approx(want, rel=1e-9)
    assert found.good.first[5] == pytest.approx(without.image[0].of(scores[0, 5:6])[0], rel=1e-9)


def test_the_mask_is_calibrated_on_the_fused_maps():
    """A good picture's peak reaches the mask's threshold about as often as its rate says."""
    found = fuse_jointly(join("abc", records_of(scores_of(400, 0))), HOW, 20, 0.01)
    new = records_of(scores_of(1000, 9))
    peaks = []
    for i in range(1000):
        maps = [tail.of(record.maps(i)) for tail, record in zip(found.scales.pixel, new, strict=True)]
        peaks.append(fuse(maps, HOW.weights, "mean").max())
    rate = (np.array(peaks) >= found.calibration.pixel.threshold).mean()
    assert found.calibration.pixel_estimate.target_fpr == 0.05
    assert rate == pytest.approx(0.05, abs=0.025)


def test_pictures_are_joined_by_what_they_are():
    scores = scores_of(60, 0)
    whole, part = records_of(scores)[0], records_of(scores[1:2, 20:50], first=20)[0]
    shuffled = np.random.default_rng(0).permutation(30)
    mixed = Record(tuple(part.contents[i] for i in shuffled), part.scores[shuffled], part.grids[shuffled], HEAD)
    joint = join("ab", [whole, mixed])
    assert len(joint) == 30
    assert joint.contents == list(whole.contents[20:50])
    np.testing.assert_array_equal(joint.scores, [scores[0, 20:50], scores[1, 20:50]])
    np.testing.assert_allclose(joint.maps(1, 3).max(), scores[1, 23], rtol=1e-3)


def test_too_few_pictures_in_common_are_refused():
    scores = scores_of(60, 0)
    records = [records_of(scores[:1, :40])[0], records_of(scores[1:2, 30:], first=30)[0]]
    with pytest.raises(DataError, match=r"at least 20 .* got 10 \(held out: fyd 40, ssae 30\)"):
        join(("fyd", "ssae"), records)


def test_a_member_that_says_the_same_of_everything_is_refused():
    scores = scores_of(60, 0)
    scores[1] = 3.0
    with pytest.raises(DataError, match=r"good pictures hardly differ .*; leave it out"):
        fuse_jointly(join("abc", records_of(scores)), HOW, 20, 0.05)


def test_few_pictures_take_the_level_from_how_members_go_together():
    """A tail fitted to 60 cross-fitted scores would give half the target: see `trainers.ensemble.copula`."""
    joint = join("abc", records_of(scores_of(60, 0)))
    found = fuse_jointly(joint, HOW, 20, 0.01)
    level, estimate = found.levels(found.good.fused, 0.01, FOLDS)
    assert level == copula.level(copula.simulated(joint.scores, HOW.mixture).fused, 0.01)
    assert found.calibration.image.threshold == pytest.approx(level, rel=1e-5)
    assert found.calibration.image_estimate == estimate
    assert (estimate.how, estimate.n_images) == ("tail-fit", 60)
    assert estimate.note.endswith("exponential tails of the members, and how they go together")
    counted = found.levels(found.good.fused, 0.2, 20)
    assert counted == level_of(found.good.fused, 0.2, 20)
