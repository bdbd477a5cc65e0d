"""The rows of the paper's figures."""

from trainers.base import AS_GIVEN
from trainers.droc import Droc
from trainers.droc.variants import BATCHES, CLASSIFIERS, TASKS


def rows(protocol):
    return Droc().variants(protocol)


def test_one_class_is_every_task_with_every_classifier_on_a_shared_representation():
    found = {row.label: row for row in rows("one-class")}
    assert set(found) == {f"{task}, {kind}" for task in TASKS for kind in CLASSIFIERS} | {"rotation, rotation-softmax"}
    for task in TASKS:
        shared = [row.representation for label, row in found.items() if label.startswith(f"{task},")]
        assert len({id(one.trainer) for one in shared}) == 1
        assert shared[0].trainer.settings.pretext == task
        assert shared[0].copy is None


def test_the_ablation_varies_one_thing_at_a_time():
    found = {(row.table, row.label): row.trainer.settings for row in rows("ablation")}
    assert all(settings.classifier == "oc-svm" for settings in found.values())
    assert [found["Figure 4b", f"distaug, batch {size}"].batch for size in BATCHES] == list(BATCHES)
    assert found["Figure 4c", "contrastive, head of 2"].layers == 2
    spread = [settings.spread for (table, _), settings in found.items() if table == "Figure 7"]
    assert [len(one) for one in spread] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert spread[3] == ("original", "hflip", "rot90", "rot90-hflip")  # the caption's example


def test_few_samples_are_learnt_from_and_all_are_fitted_to():
    found = {row.label: row for row in rows("small")}
    row = found["distaug on 1 %"]
    assert (row.copies, row.representation.copy) == ((AS_GIVEN,), "1 %")
    assert row.representation.trainer.settings.pretext == "distaug"
    assert {found[name].trainer.settings.learns for name in ("random", "imagenet")} == {False}
    assert found["random"].representation is None


def test_outliers_are_in_both_stages_or_in_the_first_alone():
    found = {(row.table, row.label): row for row in rows("contaminated")}
    both = found["Figure 10", "distaug, gde"]
    assert both.copies == ("1 % outliers", "5 % outliers", "10 % outliers")
    assert both.representation.copy is None
    first = found["Figure 11", "distaug on 5 % outliers"]
    assert (first.copies, first.representation.copy) == (("10 %",), "5 % outliers")


def test_the_paper_disturbs_nothing():
    assert rows("disturbed") == []
