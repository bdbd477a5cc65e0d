"""What a member is worth, by scikit-learn's AUROC."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from trainers.ensemble.weights import weight, weights


def test_a_member_weighs_its_auroc_above_chance():
    random = np.random.default_rng(0)
    good = random.normal(size=50)
    copies = good[:, None] + random.exponential(size=(50, 2))
    want = roc_auc_score([0] * 50 + [1] * 100, np.concatenate([good, copies.ravel()])) - 0.5
    assert weight(good, good, copies) == pytest.approx(want)


def test_what_a_member_knows_by_heart_is_taken_as_new():
    """Scores that are low because the member knows the pictures are lifted by what it says of them unseen."""
    random = np.random.default_rng(0)
    good = random.normal(size=50)
    copies = good[:, None] + random.exponential(size=(50, 2))
    known_by = random.uniform(2, 3, 50)
    assert weight(good, good - known_by, copies - known_by[:, None]) == pytest.approx(weight(good, good, copies))


def test_a_member_that_is_blind_has_next_to_no_say():
    random = np.random.default_rng(0)
    good = random.normal(size=(2, 200))
    copies = np.stack([np.repeat(good[0][:, None], 2, axis=1) - 0.1, good[1][:, None] + np.full((200, 2), 5.0)])
    blind, seeing = weights(good, good, copies)
    assert blind < 0.05 * seeing
    assert blind + seeing == pytest.approx(2)
