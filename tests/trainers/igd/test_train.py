"""IGD as a detector: the fusion of its two models, its bundle, its rows of tables."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from engine import bundle
from engine.api import load
from engine.errors import UsageError
from engine.serving.select import open_local
from engine.sheet import Sheet
from trainers.base import TrainOptions, TrainReport
from trainers.dataset.good import Pictures, read_dataset
from trainers.evaluation.evaluate import Judge, evaluate
from trainers.igd import Igd, Objective, Settings, train
from trainers.igd.detector import Fused
from trainers.igd.encoder import ResidualTrunk
from trainers.igd.latent import e_step
from trainers.igd.model import Descriptor
from trainers.igd.patches import cut
from trainers.learning import learnt
from trainers.learning.passes import seeded
from trainers.network.exported import Exported
from trainers.progress import RecordedProgress

SMALL = Settings(side_px=64, width="narrow", epochs=12, pretraining_epochs=2, patches=60)


def pictures(parts):
    items = read_dataset(parts).test
    return np.stack([Pictures(items)[i] for i in range(len(items))])


def test_fusion_is_equations_13_to_17(parts):
    with seeded(1):
        whole = Descriptor(ResidualTrunk(64, 0.1, 64), 64, 0.1, Objective()).eval()
        local = Descriptor(ResidualTrunk(32, 0.1, 64), 32, 0.1, Objective()).eval()
    images = torch.from_numpy(pictures(parts)[:2])
    x = images.permute(0, 3, 1, 2).float() / 255
    for model, seen in ((whole, x), (local, cut(x))):
        with torch.no_grad():
            model.set_latent(e_step(model.encode(model.trunk(seen))))  # so that the Gaussian term differs
    with torch.no_grad():
        maps, scores = Fused(whole, local, 64)(images)
        alone_map, alone_score = Fused(whole, None, 64)(images)
        for n in range(2):
            seen = whole(x[n : n + 1])
            s_global = float(seen.reconstruction + seen.gaussian)  # (14)
            total, count, s_patches, terms = np.zeros((64, 64)), np.zeros((64, 64)), [], []
            for i in range(0, 48, 16):
                for j in range(0, 48, 16):
                    near = local(x[n : n + 1, :, i : i + 32, j : j + 32])
                    s_patches.append(float(near.reconstruction + near.gaussian))
                    terms.append((float(near.reconstruction), float(near.gaussian)))
                    total[i : i + 32, j : j + 32] += near.map[0].numpy()
                    count[i : i + 32, j : j + 32] += 1
            np.testing.assert_allclose(scores[n], s_global + max(s_patches), rtol=1e-4)  # (13), (15)
            assert max(s_patches) < np.max(terms, axis=0).sum() - 1e-3  # the worst patch has not both terms' maximum
            np.testing.assert_allclose(maps[n], seen.map[0].numpy() + total / count, rtol=1e-3, atol=1e-5)  # (16), (17)
            np.testing.assert_allclose(alone_score[n], s_global, rtol=1e-5)
            np.testing.assert_allclose(alone_map[n], seen.map[0], rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def options(parts, tmp_path_factory):
    return TrainOptions(data=parts, out=tmp_path_factory.mktemp("igd") / "out", threads=1, target_fpr=0.05)


@dataclass(frozen=True)
class Whole:
    """The report of a training with the default encoder, and its network as torch has it."""

    report: TrainReport
    network: Fused


@pytest.fixture(scope="module")
def whole(options):
    """The default backbone with its ImageNet weights."""
    made = []

    def learn(job):
        made.append(train._learn(job))
        return made[0]

    settings = SMALL.with_options(options)
    assert (settings.encoder, settings.backbone) == ("imagenet", "efficientnet_lite0")
    report = learnt.train(Igd(), settings, learn, options, RecordedProgress())
    return Whole(report, made[0].network.eval())


def test_torch_onnx_and_the_bundle_give_one_score(whole, parts):
    """From the training's network to what is served."""
    images = pictures(parts)
    with torch.no_grad():
        places, scores = whole.network(torch.from_numpy(images))
    exported = Exported(whole.report.bundle / "network.onnx", 1)(images)
    apart = np.abs(exported[0] - places.numpy()).mean()  # (17) is steep where a scale does not correlate: of few pixels
    assert apart < 1e-4 * float(places.mean())
    np.testing.assert_allclose(exported[1], scores, rtol=1e-3)
    with load(whole.report.bundle, backend="onnx", threads=1) as model:
        served = [result.raw_score for result in model.predict(list(images))]
    np.testing.assert_allclose(served, scores, rtol=1e-3)
    assert np.ptp(served) > 0.02 * np.mean(served)  # they differ by more than the tolerance


def test_the_graph_gives_a_map_and_a_score(whole):
    graph = onnx.load(whole.report.bundle / "network.onnx").graph
    assert [output.name for output in graph.output] == ["grid", "score"]
    assert len(graph.output[1].type.tensor_type.shape.dim) == 1


def test_the_picture_s_score_is_the_network_s_and_not_the_map_s(whole, parts):
    detector = open_local(bundle.read(whole.report.bundle), "onnx", "fp32", threads=1)
    raw = detector.predict(pictures(parts))
    assert raw.scores.shape == (12,)
    assert not np.allclose(raw.scores, raw.maps.max(axis=(1, 2)), rtol=0.01)
    calibration = whole.report.calibration["fp32"]
    assert 0.5 * raw.scores.min() < calibration.image.threshold < 2 * raw.scores.max()
    assert calibration.pixel.threshold < raw.maps.max()


def test_defects_are_located(whole, parts):
    loaded = bundle.read(whole.report.bundle)
    detector = open_local(loaded, "onnx", "fp32", threads=1)
    judge = Judge(detector.predict, Sheet(((64, 64),)), whole.report.calibration["fp32"])
    assert evaluate(judge, read_dataset(parts), RecordedProgress()).overall.pixel_auroc > 0.9


def test_the_bundle_says_what_was_used(whole):
    manifest = bundle.read(whole.report.bundle).manifest
    settings = manifest.settings
    assert (settings["encoder"], settings["width"], settings["structural"], settings["rho"]) == (
        "imagenet",
        "narrow",
        True,
        0.15,
    )
    assert settings["backbone"] == "efficientnet_lite0"
    assert manifest.report["patches"] == 60
    assert manifest.report["n_held_out"] == 5
    assert manifest.report["sigma_global"] > 0


@pytest.mark.parametrize("encoder", ["self-supervised", "distilled"])
def test_taught_encoders_train_and_one_patch_needs_no_local_model(encoder, parts, tmp_path):
    settings = replace(SMALL, encoder=encoder, epochs=2, side_px=32)
    report = Igd(settings).train(TrainOptions(data=parts, out=tmp_path / "out", threads=1), RecordedProgress())
    assert {"loss_global_encoder", "loss_global"} <= report.measured.keys()
    assert "loss_local" not in report.measured
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]  # no checkpoint is left


@pytest.mark.parametrize("side", [48, 96, 100])
def test_sizes_that_do_not_halve_are_refused(side):
    with pytest.raises(UsageError, match=f"--image-size {side}: expected 32 or a multiple of 64 px; use 64|use 128"):
        Settings(side_px=side)


def test_epochs_of_none_are_refused():
    with pytest.raises(UsageError, match="--epochs 0"):
        Igd().settings.with_options(TrainOptions(Path(), Path(), epochs=0))


def test_the_local_model_s_schedule_is_a_share_of_the_global_one_s():
    assert [Settings().passes(n) for n in (1, 6, 10, 256)] == [1, 1, 2, 43]


def test_ablation_has_the_rows_and_columns_of_table_5():
    rows = {v.label: (v.trainer.settings.objective, v.copies) for v in Igd().variants("ablation")}
    columns = ("as given", "20 %", "10 % contaminated")
    off = Objective(structural=False, gaussian=False, interpolation=False)
    assert rows == {
        "MSE": (off, columns),
        "REC": (replace(off, structural=True), columns),
        "REC + GAC": (Objective(interpolation=False), columns),
        "REC + GAC + INTER": (Objective(), columns),
    }


def test_one_class_has_every_encoder_of_table_1():
    rows = {v.label: v.trainer.settings.encoder for v in Igd().variants("one-class") if v.table == "Table 1"}
    assert rows == {name: name for name in ("scratch", "imagenet", "distilled", "self-supervised")}


def test_robustness_tables_have_the_paper_s_shares():
    small, contaminated = (Igd().variants(name)[0] for name in ("small", "contaminated"))
    assert small.copies == ("20 %", "60 %", "as given")
    assert contaminated.copies == ("1 % contaminated", "5 % contaminated", "10 % contaminated")
    assert Igd().variants("disturbed") == []


@pytest.mark.parametrize(
    ("epochs", "schedule"), [(None, (3, 20)), (20, (3, 20)), (60, (10, 60)), (6, (1, 6)), (1, (1, 1)), (240, (10, 240))]
)
def test_e_steps_and_pretraining_go_in_proportion_with_the_training(epochs, schedule):
    asked = Settings().with_options(TrainOptions(Path(), Path(), epochs=epochs))
    assert (asked.e_step_period, asked.encoder_epochs) == schedule
    assert (asked.record()["e_step_every"], asked.record()["pretraining_epochs"]) == schedule


def test_a_schedule_that_is_given_stays():
    asked = Settings(e_step_every=5, pretraining_epochs=7).with_options(TrainOptions(Path(), Path(), epochs=60))
    assert (asked.e_step_period, asked.encoder_epochs) == (5, 7)


def test_an_encoder_of_the_local_model_is_taught_a_twentieth_of_the_global_one_s_passes():
    assert [Settings(pretraining_epochs=n).local_encoder_epochs for n in (1, 60, 2000)] == [1, 3, 100]
