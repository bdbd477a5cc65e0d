"""DROC's protocol on a handful of pictures, and its table."""

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


def test_every_classifier_is_judged_on_all_test_pictures_and_after_every_pass(data):
    settings = replace(one_class.SETTINGS, pretext="rotation", epochs=2, batch_size=8)
    test = resized.read(data.test.images, 32, RecordedProgress())
    found = json.loads(json.dumps(one_class.measure(data, test, settings, 0, 0)))
    assert set(found["AUROC"]) == {*one_class.CLASSIFIERS, "rotation-softmax"}
    assert all(0 <= value <= 1 for value in found["AUROC"].values())
    assert len(found["curve"]) == len(found["mmd"]) == 2
    assert found["curve"][-1] == found["AUROC"]["gde"]
    assert found["AUROC"]["gde"] > 0.8  # brightness tells them apart


def test_the_table_is_of_all_runs_that_are_kept(tmp_path):
    for seed, value in ((0, 0.7), (1, 0.8)):
        run = {"good": "dark", "task": "distaug", "epochs": 6, "seed": seed, "mmd": [0.3, 0.1], "learnt_cpu_s": 50.0}
        (tmp_path / f"{seed}.json").write_text(json.dumps(run | {"AUROC": dict.fromkeys(one_class.CLASSIFIERS, value)}))
    rows = list(one_class.gather(tmp_path))
    assert [len(row["runs"]) for row in rows] == [2]
    line = one_class.table({"rows": rows}).splitlines()[2]
    scores = " | ".join(["0.750 ± 0.071"] * 4)
    assert line == f"| dark | distaug | 6 | 2 | {scores} | - | 0.100 ± 0.000 | 50 |"
