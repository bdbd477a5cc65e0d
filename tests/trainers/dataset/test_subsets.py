"""Smaller and contaminated copies of a dataset."""

import shutil

import cv2
import numpy as np
import pytest

from engine.errors import DataError
from trainers.dataset.good import read_dataset
from trainers.dataset.subsets import write_contaminated, write_outliers, write_small


def contents(items):
    return [item.path.read_bytes() for item in items]


def test_a_share_of_the_training_set_is_drawn_by_the_seed(parts, tmp_path):
    before = read_dataset(parts)
    drawn = [
        read_dataset(write_small(before, share, tmp_path / str(i), seed))
        for i, (share, seed) in enumerate([(0.2, 0), (0.2, 0), (0.2, 1), (0.6, 0)])
    ]
    assert [len(dataset.train) for dataset in drawn] == [5, 5, 5, 14]
    assert contents(drawn[0].train) == contents(drawn[1].train) != contents(drawn[2].train)
    known = contents(before.train)
    assert all(content in known for content in contents(drawn[3].train))
    assert set(contents(drawn[0].train)) < set(contents(drawn[3].train))


def test_the_test_set_and_its_masks_stay(parts, tmp_path):
    before, after = read_dataset(parts), read_dataset(write_small(read_dataset(parts), 0.2, tmp_path / "small", 0))
    assert contents(after.test) == contents(before.test)
    assert [item.defect for item in after.test] == [item.defect for item in before.test]
    masks = [[item.mask.read_bytes() for item in dataset.test if item.mask] for dataset in (before, after)]
    assert masks[0] == masks[1]
    assert len(masks[0]) == 6


@pytest.mark.parametrize(("share", "moved"), [(0.01, 1), (0.5, 3)])
def test_contamination_moves_defective_pictures_from_test_to_training(share, moved, parts, tmp_path):
    before = read_dataset(parts)
    after = read_dataset(write_contaminated(before, share, tmp_path / "copy", 0))
    defective = contents([item for item in before.test if item.defect])
    injected = [content for content in contents(after.train) if content in defective]
    left = contents([item for item in after.test if item.defect])
    assert len(injected) == moved
    assert sorted(injected + left) == sorted(defective)
    assert len(after.train) == len(before.train) + moved
    assert sum(item.defect is None for item in after.test) == 6
    assert all(item.mask for item in after.test if item.defect)


def test_without_defects_nothing_can_be_contaminated(parts, tmp_path):
    with pytest.raises(DataError, match="no defective test pictures"):
        write_contaminated(read_dataset(parts / "train" / "good"), 0.1, tmp_path / "copy", 0)


@pytest.mark.parametrize("share", [0.1, 0.2])
def test_outliers_are_a_share_of_the_training_set_and_leave_the_test_set(share, parts, tmp_path):
    before = read_dataset(parts)
    after = read_dataset(write_outliers(before, share, tmp_path / "copy", 0))
    defective = contents([item for item in before.test if item.defect])
    injected = [content for content in contents(after.train) if content in defective]
    assert len(injected) == round(share * len(after.train))
    assert sorted(injected + contents([item for item in after.test if item.defect])) == sorted(defective)
    with pytest.raises(
        DataError, match="50 % outliers among 24 good pictures need 24 bad ones, got 6; lower the ratio"
    ):
        write_outliers(before, 0.5, tmp_path / "many", 0)


def test_spare_outliers_come_first_and_the_test_set_stays(parts, tmp_path):
    root = tmp_path / "with spare"
    shutil.copytree(parts, root)
    for i in range(8):
        path = root / "spare" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full((64, 64, 3), i, np.uint8))
    before = read_dataset(root)
    assert len(before.train) == 24  # spare ones are no training pictures by themselves
    after = read_dataset(write_outliers(before, 0.2, tmp_path / "copy", 0))
    spare = [path.read_bytes() for path in (root / "spare").iterdir()]
    assert sum(content in spare for content in contents(after.train)) == 6
    assert contents(after.test) == contents(before.test)
