"""The one-class protocol on a handful of pictures, and its tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import one_class
from trainers.dataset import resized
from trainers.dataset.labelled import Labelled, Part, Stored
from trainers.progress import RecordedProgress


@pytest.fixture
def data():
    """Dark pictures and bright ones."""
    labels = np.arange(48) % 2
    random = np.random.default_rng(0)
    images = random.integers(0, 60, (48, 32, 32, 3)) + 150 * labels[:, None, None, None]
    part = Part(Stored(images.astype(np.uint8)), labels)
    return Labelled(Path("some"), ("dark", "bright"), part, part)


def measured(data, variant, **changes):
    test = resized.read(data.test.images, 32, RecordedProgress())
    run = one_class.Run(variant, "dark", 2, 0)
    return json.loads(json.dumps(one_class.measure(data, test, replace(run.settings, **changes), run)))


def test_every_classifier_is_judged_on_all_test_pictures_and_after_every_pass(data):
    found = measured(data, "droc, rotation", batch_size=8)
    assert set(found["AUROC"]) == {*one_class.CLASSIFIERS, "rotation-softmax"}
    assert all(0 <= value <= 1 for value in found["AUROC"].values())
    assert set(found["curve"]) == {"1", "2"}
    assert len(found["mmd"]) == 2
    assert found["curve"]["2"] == found["AUROC"]["gde"]
    assert found["AUROC"]["gde"] > 0.8  # brightness tells them apart


@pytest.mark.parametrize("variant", ["igd, imagenet", "igd, scratch"])
def test_igd_is_judged_by_its_score_and_by_its_terms(variant, data):
    found = measured(data, variant)
    assert list(found["AUROC"]) == ["score (14)", "reconstruction (12)", "Gaussian (8)"]
    assert found["curve"]["2"] == found["AUROC"]["score (14)"]
    assert all(0 <= value <= 1 for value in found["AUROC"].values())


def test_the_results_grow_run_by_run(tmp_path):
    run = one_class.Run("droc, distaug", "dark", 6, 1)
    assert not one_class.Rows("some", tmp_path).has(run)
    one_class.Rows("some", tmp_path).add(run, {"AUROC": {"gde": 0.7}})
    one_class.Rows("some", tmp_path).add(replace(run, seed=0), {"AUROC": {"gde": 0.6}})
    rows = one_class.Rows("some", tmp_path)
    rows.add(replace(run, variant="droc, rotation"), {"AUROC": {"gde": 0.5}})
    assert rows.has(run)
    found = json.loads((tmp_path / "one_class.json").read_text())
    assert found["data"] == "some"
    assert [(row["variant"], [made["seed"] for made in row["runs"]]) for row in found["rows"]] == [
        ("droc, rotation", [1]),
        ("droc, distaug", [0, 1]),
    ]


def test_the_tables_are_of_all_runs(tmp_path):
    rows = one_class.Rows("some", tmp_path)
    for good, seed, value in (("dark", 0, 0.7), ("dark", 1, 0.8), ("light", 1, 0.4)):
        found = {"AUROC": dict.fromkeys(one_class.CLASSIFIERS, value), "curve": {"3": 0.5, "6": value}}
        rows.add(one_class.Run("droc, distaug", good, 6, seed), found | {"mmd": [0.3, 0.1], "learnt_cpu_s": 50.0})
    found = {"AUROC": {"score (14)": 0.9}, "curve": {"6": 0.9}, "learnt_cpu_s": 50.0}
    rows.add(one_class.Run("igd, scratch", "dark", 6, 0), found)
    assert [len(row["runs"]) for row in rows.rows] == [2, 1, 1]
    droc, igd, curves = one_class.table({"rows": rows.rows}).split("\n\n")
    both = " | ".join(["0.750 ± 0.071"] * 4)
    assert droc.splitlines()[2] == f"| droc, distaug | dark | 6 | 2 | {both} | - | 0.100 ± 0.000 | 50 |"
    assert droc.splitlines()[4].startswith("| droc, distaug | mean of 2 | 6 | 1 | 0.600 | 0.600 |")  # of seed 1
    assert igd.splitlines()[2:] == ["| igd, scratch | dark | 6 | 1 | 0.900 | - | - | 50 |"]
    assert curves.splitlines()[2] == "| droc, distaug | dark | 2 | 3: 0.500, 6: 0.750 |"
