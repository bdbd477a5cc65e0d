"""The names of copies, and what they make."""

import pytest

from trainers.dataset.copies import at_ratio, copy_named
from trainers.dataset.good import read_dataset
from trainers.progress import RecordedProgress


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [("as given", 24, 6), ("50 %", 12, 6), ("50 % contaminated", 27, 3), ("20 % outliers", 30, 0), ("2.5 %", 1, 6)],
)
def test_names_say_how_many_pictures_are_trained_and_judged_on(name, good, bad, parts, tmp_path):
    found = read_dataset(copy_named(name)(read_dataset(parts), tmp_path / "copy", 0, RecordedProgress()))
    assert len(found.train) == good
    assert sum(item.defect is not None for item in found.test) == bad


@pytest.mark.parametrize("name", ["x", "20%", "5 % more", "-1 %"])
def test_other_names_are_no_copies(name):
    with pytest.raises(ValueError, match="is not known"):
        copy_named(name)


def test_another_ratio_is_another_share_of_bad_pictures_only():
    assert at_ratio("5 % outliers", 0.025) == "2.5 % outliers"
    assert at_ratio("rotation on 10 % contaminated", 0.2) == "rotation on 20 % contaminated"
    assert at_ratio("20 %", 0.1) == "20 %"
