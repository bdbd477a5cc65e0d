"""SSAE from pictures to bundle: each objective, both fused, and that an interruption changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from engine import bundle
from engine.serving.select import open_local
from engine.sheet import Sheet
from trainers.calibration.holdout import Split
from trainers.dataset import resized
from trainers.dataset.good import Pictures, read_dataset
from trainers.evaluation.evaluate import Judge, evaluate
from trainers.job import Job
from trainers.learning.passes import seeded
from trainers.progress import RecordedProgress
from trainers.ssae import Settings, Ssae
from trainers.ssae.model import Autoencoder, ErrorMap
from trainers.ssae.train import _apart, _peak

QUICK = Settings(epochs=6, learning_rate=0.004, stages=(1.0,))


def train(tiny_options, out, progress=None, settings=QUICK, side_px=64):
    options = replace(tiny_options("ssae", out), epochs=None, image_size=side_px, objective="both")
    return Ssae(settings).train(options, progress or RecordedProgress())


@pytest.fixture(scope="module")
def both(tiny_options, tmp_path_factory):
    return train(tiny_options, tmp_path_factory.mktemp("both") / "bundle")


def judge(report):
    loaded = bundle.read(report.bundle)
    detector = open_local(loaded, "onnx", "fp32", threads=1)
    return Judge(detector.predict, Sheet(((64, 64),)), loaded.executable("fp32").calibration)


def test_both_objectives_are_one_bundle_that_finds_notches(both, parts):
    manifest = bundle.read(both.bundle).manifest
    assert (manifest.settings["objective"], manifest.settings["width"]) == ("both", "narrow")
    assert {"loss_1", "loss_2", "best_epoch_2", "separation_2"} <= set(manifest.report)
    assert manifest.report["separation_2"] > 0.8
    found = evaluate(judge(both), read_dataset(parts), RecordedProgress())
    assert found.overall.pixel_auroc > 0.9
    assert found.overall.image_auroc == 1.0


def test_the_scale_of_a_member_is_its_mean_peak_on_training_pictures(tiny_options, parts, tmp_path):
    """In float64 with scipy's smoothing."""
    files = Pictures(read_dataset(parts).train)
    pictures = resized.read(files, 64, RecordedProgress())
    split = Split(pictures.subset(range(10)), pictures.subset([]))
    job = Job(tiny_options("ssae", tmp_path), replace(QUICK, side_px=64), None, split, RecordedProgress(), 0.0)
    with seeded(0):
        error = ErrorMap(Autoencoder(1 / 16).eval())
    with torch.no_grad():
        maps = error(torch.from_numpy(pictures.take(range(10)))).double().numpy()
    peaks = [gaussian_filter(m, 1.0, mode="reflect", radius=4).max() for m in maps]
    assert _peak(error, job) == pytest.approx(np.mean(peaks), rel=1e-4)


def test_an_interrupted_training_gives_the_same_bundle(tiny_options, tmp_path, interrupted):
    def run(folder, progress):
        return train(tiny_options, tmp_path / folder / "bundle", progress, replace(QUICK, epochs=2), side_px=32)

    whole = run("one", RecordedProgress())
    interrupted(lambda progress: run("two", progress), only="objective 2")
    left = {path.name for path in (tmp_path / "two").iterdir()}
    assert left == {".bundle.objective1.checkpoint", ".bundle.objective2.checkpoint"}
    progress = RecordedProgress()
    resumed = run("two", progress)
    assert [line.partition(" (")[0] for line in progress.lines if "going on" in line] == [
        "going on after epoch 2 of 2",
        "going on after epoch 1 of 2",
    ]
    for path in whole.bundle.iterdir():
        assert (resumed.bundle / path.name).read_bytes() == path.read_bytes()
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["bundle"]


def test_pictures_to_stop_by_are_neighbours_and_apart():
    pictures = resized.Resized(np.zeros((80, 1, 1, 3), np.uint8), np.arange(80))
    training, apart = _apart(pictures)
    assert apart.rows.tolist() == [40, 41, 42, 43]
    assert sorted([*training.rows, *apart.rows]) == list(range(80))


def test_the_ablation_is_table_4_and_the_ensemble():
    rows = {v.label: v.trainer.settings.objective for v in Ssae().variants("ablation")}
    assert rows == {"objective (1)": "1", "objective (2)": "2", "both": "both"}
    assert Ssae().variants("disturbed") == []
