"""What a member is worth, by scikit-learn's AUROC."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from trainers.ensemble.weights import weight, weights


def test_a_member_weighs_its_mean_auroc_above_chance_over_the_kinds():
    random = np.random.default_rng(0)
    good = random.normal(size=80)
    copies = good[:50, None] + random.exponential([0.5, 2.0, 4.0], size=(50, 3))
    each = [roc_auc_score([0] * 80 + [1] * 50, np.concatenate([good, kind])) for kind in copies.T]
    assert weight(good, copies) == pytest.approx(np.mean(each) - 0.5)


def test_a_member_that_is_blind_has_next_to_no_say():
    random = np.random.default_rng(0)
    good = random.normal(size=(2, 200))
    copies = np.stack([np.repeat(good[0][:, None], 2, axis=1) - 0.1, good[1][:, None] + np.full((200, 2), 5.0)])
    blind, seeing = weights(good, copies)
    assert blind < 0.05 * seeing
    assert blind + seeing == pytest.approx(2)
