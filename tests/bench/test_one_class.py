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
    settings = replace(one_class.VARIANTS[variant], epochs=2, **changes)
    return json.loads(json.dumps(one_class.measure(data, test, settings, 0, 0)))


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


def kept(folder, variant, good, seed, **values):
    run = {"variant": variant, "good": good, "epochs": 6, "seed": seed, "learnt_cpu_s": 50.0}
    (folder / f"{variant}-{good}-{seed}.json").write_text(json.dumps(run | values))


def test_the_tables_are_of_all_runs_that_are_kept(tmp_path):
    for good, seed, value in (("dark", 0, 0.7), ("dark", 1, 0.8), ("light", 1, 0.4)):
        found = {"AUROC": dict.fromkeys(one_class.CLASSIFIERS, value), "curve": {"3": 0.5, "6": value}}
        kept(tmp_path, "droc, distaug", good, seed, mmd=[0.3, 0.1], **found)
    kept(tmp_path, "igd, scratch", "dark", 0, AUROC={"score (14)": 0.9}, curve={"6": 0.9})
    rows = list(one_class.gather(tmp_path))
    assert [len(row["runs"]) for row in rows] == [2, 1, 1]
    droc, igd, curves = one_class.table({"rows": rows}).split("\n\n")
    both = " | ".join(["0.750 ± 0.071"] * 4)
    assert droc.splitlines()[2] == f"| droc, distaug | dark | 6 | 2 | {both} | - | 0.100 ± 0.000 | 50 |"
    assert droc.splitlines()[4].startswith("| droc, distaug | mean of 2 | 6 | 1 | 0.600 | 0.600 |")  # of seed 1
    assert igd.splitlines()[2:] == ["| igd, scratch | dark | 6 | 1 | 0.900 | - | - | 50 |"]
    assert curves.splitlines()[2] == "| droc, distaug | dark | 2 | 3: 0.500, 6: 0.750 |"
