"""Copies are judged by models that have not seen their originals: the very ones of the calibration."""

import numpy as np
import pytest

from engine import bundle as bundles
from engine.cli.fuse import opener
from trainers.calibration import record
from trainers.dataset.good import check_training, read_dataset
from trainers.dataset.synthetic import KINDS
from trainers.ensemble.copies import Served, judge_of, judged
from trainers.progress import RecordedProgress


@pytest.fixture(scope="module")
def member(pair):
    bundle = bundles.read(pair[0])
    with opener(threads=1)(bundle, "fp32") as predict:
        yield Served(bundle, "fp32", predict)


def test_what_judges_a_copy_judged_its_original_in_calibration(member, parts):
    data = check_training(read_dataset(parts))
    judge = judge_of(member, data, 1, RecordedProgress())
    sheets = [member.bundle.sheet.fit(data.pictures[row])[None] for row in range(len(data.pictures))]
    unseen = np.array([judge(row, sheet)[0] for row, sheet in enumerate(sheets)])
    np.testing.assert_allclose(unseen, record.read(member.bundle, "fp32").scores, rtol=1e-4)
    known = np.array([member.predict(sheet).scores[0] for sheet in sheets])
    assert np.median(unseen / known) > 1.05  # what it learnt from it finds less surprising


def test_copies_of_every_kind_are_judged(member, parts):
    data = check_training(read_dataset(parts))
    scores = judged([member, member], data, [2, 5, 17], 1, RecordedProgress())
    assert scores.shape == (2, 3, len(KINDS))
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_allclose(judged([member], data, [5], 1, RecordedProgress())[0, 0], scores[0, 1], rtol=1e-6)
