"""`engine fuse` and `--method ensemble` from trained bundles to one that is served, and what is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from engine import bundle as bundles
from engine.api import load
from engine.cascade import KINDS
from engine.cascade import read as read_frames
from engine.cli import main
from engine.cli.fuse import opener
from engine.errors import BundleError, DataError, UsageError
from engine.serving.select import local_backends, open_local
from trainers import backbones, registry
from trainers.base import TrainOptions
from trainers.calibration import record
from trainers.dataset.good import Pictures, read_dataset
from trainers.dataset.pixels import in_unit_range
from trainers.ensemble import common
from trainers.ensemble import train as ensemble
from trainers.ensemble.fuse import FuseOptions, fuse
from trainers.evaluation.evaluate import Judge, evaluate
from trainers.igd.encoder import BackboneTrunk
from trainers.network.export import export_onnx
from trainers.progress import RecordedProgress

OPEN = opener(threads=1)
CONVOLUTIONS = 33  # of EfficientNet-Lite0 up to its third level


@pytest.fixture(scope="module")
def few(parts, tmp_path_factory) -> Path:
    """A member with the backbone and the size of `lite`, and some of its channels."""
    options = TrainOptions(
        data=parts, out=tmp_path_factory.mktemp("few") / "few", image_size=64, channels=40, threads=1
    )
    return registry.get("fyd").train(replace(options, target_fpr=0.05), RecordedProgress()).bundle


@pytest.fixture(scope="module")
def fused(parts, pair, tmp_path_factory):
    out = tmp_path_factory.mktemp("fused") / "both"
    return fuse(FuseOptions(pair, parts, out, target_fpr=0.05, review_fpr=0.2), OPEN, RecordedProgress())


def test_a_member_keeps_what_its_threshold_rests_on(pair, parts):
    loaded = bundles.read(pair[0])
    kept = record.read(loaded, "fp32")
    assert len(kept.contents) == 24
    assert kept.contents == tuple(bundles.sha256(item.path) for item in read_dataset(parts).train)
    image = loaded.calibration("fp32").image
    assert np.median(image.calibrated(kept.scores)) == pytest.approx(0.1, abs=1e-4)
    peaks = [kept.maps(i).max() for i in range(24)]
    np.testing.assert_allclose(peaks, kept.scores, rtol=2e-3)


def test_the_ensemble_is_complete_and_says_what_it_does(fused, pair):
    document = json.loads(json.dumps(fused.to_json(), allow_nan=False))
    assert (document["method"], set(document["calibration"])) == ("ensemble", {"fp32", "int8"})
    loaded = bundles.read(fused.bundle)
    assert set(loaded.members) == {"lite", "r18"}
    assert loaded.sheet.sizes in (((64, 64), (96, 96)), ((96, 96), (64, 64)))
    assert (loaded.manifest.input.height, loaded.manifest.training.n_good) == (96, 24)
    for precision in ("fp32", "int8"):
        spec = loaded.ensemble(precision)
        costs = [member.cost_ms for member in spec.members]
        assert costs == sorted(costs)
        assert np.mean([member.weight for member in spec.members]) == pytest.approx(1)
        assert spec.calibration.image_estimate.target_fpr == 0.05
        assert spec.calibration.review < spec.calibration.image.threshold
        frames = read_frames(loaded.file(spec.frames))
        assert {kind: len(frames[kind].first) for kind in KINDS} == {"good": 24, "synthetic": 192, "labelled": 6}
    measured = document["report"]
    assert measured["good_n"] == 24
    assert 1 <= measured["cascade_mean_cost"] <= measured["full_cost"] + 1e-9


def test_members_are_copied_whole_and_stand_alone(fused, pair):
    for path in pair:
        copy = fused.bundle / "members" / path.name
        assert {p.name: p.read_bytes() for p in copy.iterdir()} == {p.name: p.read_bytes() for p in path.iterdir()}
        assert bundles.read(copy).manifest == bundles.read(path).manifest


def test_a_backbone_that_two_members_have_is_computed_once(pair, few, parts, tmp_path):
    """In both precisions, and with the scores that each member has by itself."""
    timed = []

    def open_member(bundle, precision):
        timed.append((bundle.manifest.name, precision))
        return OPEN(bundle, precision)

    options = FuseOptions((pair[0], few), parts, tmp_path / "two", target_fpr=0.05)
    loaded = bundles.read(fuse(options, open_member, RecordedProgress()).bundle)
    pictures = Pictures(read_dataset(parts).test)
    sheets = np.stack([loaded.sheet.fit(pictures[i]) for i in range(len(pictures))])
    for precision in ("fp32", "int8"):
        networks = [member.network for member in loaded.ensemble(precision).members]
        ours = [onnx.load(loaded.file(network)).graph.node for network in networks]
        assert [sum(node.op_type == "Conv" for node in nodes) for nodes in ours] == [CONVOLUTIONS, 0]
        raw = open_local(loaded, "onnx", precision, 1).predict(sheets)
        for name, member in loaded.members.items():
            alone = open_local(member, "onnx", precision, 1).predict(loaded.sheet.view(sheets, member.sheet.sizes[0]))
            np.testing.assert_allclose(raw.members[name], alone.scores, rtol=1e-5)
    assert {("two", "fp32"), ("two", "int8")} < set(timed)  # the whole, whose cost is not the sum of its parts
    assert loaded.manifest.report["full_cost"] >= 1


class Trunk(nn.Module):
    """What the networks of IGD begin with by default."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = BackboneTrunk(backbones.load(backbones.DEFAULT, 64), 64)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.trunk(in_unit_range(images))


def test_fyd_and_igd_on_one_backbone_begin_alike(pair, tmp_path):
    export_onnx(Trunk(), tmp_path / "igd.onnx", 64, ("score",))
    _, igd = common.shared([onnx.load(pair[0] / "network.onnx"), onnx.load(tmp_path / "igd.onnx")])
    assert not any(node.op_type == "Conv" for node in igd.graph.node)


def test_backends_agree_on_the_fused_score(fused, parts):
    loaded = bundles.read(fused.bundle)
    pictures = Pictures(read_dataset(parts).test)
    sheets = np.stack([loaded.sheet.fit(pictures[i]) for i in range(len(pictures))])
    first, *others = [open_local(loaded, name, "fp32", 1).predict(sheets) for name in local_backends()]
    for other in others:
        np.testing.assert_allclose(other.scores, first.scores, rtol=1e-3)


def test_it_is_evaluated_and_judges_like_any_bundle(fused, parts):
    loaded = bundles.read(fused.bundle)
    judge = Judge(open_local(loaded, "onnx", "fp32", 1).predict, loaded.sheet, loaded.calibration("fp32"))
    found = evaluate(judge, read_dataset(parts), RecordedProgress())
    assert found.overall.image_auroc == 1.0
    with load(fused.bundle, backend="onnx", threads=1) as model:
        results = model.predict([item.path for item in read_dataset(parts).test])
    assert all(set(result.scores) == {"lite", "r18"} for result in results)
    assert [result.pred_score for result in results] == pytest.approx([p.pred_score for p in found.pictures])
    assert {r.decision for r, p in zip(results, found.pictures, strict=True) if p.defect} == {"reject"}


def test_side_by_side_it_and_its_members_are_what_each_is_evaluated_as(fused, parts, tmp_path, capsys):
    command = ["eval", fused.bundle, parts, "--out", tmp_path / "report", "--backend", "onnx", "--threads", 1, "--json"]
    assert main([str(word) for word in command]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((tmp_path / "report/evaluation.json").read_text())
    rows = document["ensemble"]["members"] | {"fused": document["ensemble"]["fused"]}
    whole = bundles.read(fused.bundle)
    for name, one in {**whole.members, "fused": whole}.items():
        judge = Judge(open_local(one, "onnx", "fp32", 1).predict, one.sheet, one.calibration("fp32"))
        own = evaluate(judge, read_dataset(parts), RecordedProgress()).document()
        for figure in ("image_AUROC", "f1", "recall", "false_alarm_rate", "target_fpr"):
            assert rows[name][figure] == pytest.approx(own[figure])
    costs = {member.name: member.cost_ms for member in whole.ensemble("fp32").members}
    assert {name: row["cost_ms"] for name, row in rows.items()} == pytest.approx(
        {**costs, "fused": sum(costs.values())}
    )
    page = (tmp_path / "report/report.html").read_text()
    assert all(f"{name} alone" in page for name in costs)


def test_weights_and_the_maximum_can_be_asked_for(pair, parts, tmp_path):
    asked = FuseOptions(pair, parts, tmp_path / "both", rule="max", weights=(1.0, 3.0))
    spec = bundles.read(fuse(asked, OPEN, RecordedProgress()).bundle).ensemble("fp32")
    assert spec.rule == "max"
    assert {member.name: member.weight for member in spec.members} == {"lite": 1.0, "r18": 3.0}


def test_fusing_again_gives_the_same_model(fused, pair, parts, tmp_path):
    again = fuse(FuseOptions(pair, parts, tmp_path / "both", 0.05, 0.2), OPEN, RecordedProgress())
    assert again.calibration["fp32"].image.threshold == pytest.approx(fused.calibration["fp32"].image.threshold)


def refused(pair, parts, tmp_path, error, match, **changes: object) -> None:
    with pytest.raises(error, match=match):
        fuse(replace(FuseOptions(pair, parts, tmp_path / "out"), **changes), OPEN, RecordedProgress())
    assert not (tmp_path / "out").exists()


def test_members_trained_on_other_pictures_are_refused(pair, parts, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(parts, other)
    (other / "train/good/000.png").unlink()
    match = r"lite: was trained on other pictures \(24 good ones at .*\) than .*other holds \(23\)"
    refused(pair, parts, tmp_path, DataError, match, data=other)


def test_members_that_cannot_be_fused_are_refused(pair, fused, parts, tmp_path):
    refused(pair, parts, tmp_path, UsageError, "at least two bundles, got 1", members=pair[:1])
    refused(pair, parts, tmp_path, UsageError, "two members would be named 'lite'", members=(pair[0], pair[0]))
    refused(pair, parts, tmp_path, BundleError, "no bundle here", members=(pair[0], tmp_path / "none"))
    refused(pair, parts, tmp_path, UsageError, "is an ensemble itself", members=(pair[0], fused.bundle))
    refused(pair, parts, tmp_path, UsageError, "expected 2 positive weights", weights=(1.0, 0.0))


def copy_of(path: Path, folder: Path, change: Callable[..., object]) -> Path:
    """A copy whose manifest's executables are changed."""
    copy = folder / path.name
    shutil.copytree(path, copy)
    manifest = bundles.read(copy).manifest
    executables = {name: change(each) for name, each in manifest.executables.items()}
    bundles.write_manifest(copy, msgspec.structs.replace(manifest, executables=executables))
    return copy


def test_a_bundle_of_an_older_version_is_served_but_not_fused(pair, parts, tmp_path):
    old = copy_of(pair[0], tmp_path, lambda executable: msgspec.structs.replace(executable, held_out=None))
    with load(old, backend="onnx", threads=1) as model:
        assert len(model.predict([np.zeros((64, 64, 3), np.uint8)])) == 1
    match = "lite: keeps no held-out scores, it was trained by an older version; train it again"
    refused(pair, parts, tmp_path, BundleError, match, members=(old, pair[1]))


def test_a_damaged_member_is_refused(pair, parts, tmp_path):
    copy = tmp_path / "lite"
    shutil.copytree(pair[0], copy)
    (copy / "held_out.fp32.safetensors").write_bytes(b"damaged")
    refused(pair, parts, tmp_path, BundleError, "SHA-256", members=(copy, pair[1]))


@pytest.mark.slow
def test_an_ensemble_is_trained_member_by_member(tmp_path, many_parts):
    options = TrainOptions(data=many_parts, out=tmp_path / "out" / "e", image_size=64, epochs=1, threads=1)
    progress = RecordedProgress()
    report = ensemble.train(replace(options, target_fpr=0.05), ("fyd", "ssae"), None, OPEN, progress)
    loaded = bundles.read(report.bundle)
    assert set(loaded.members) == {"fyd", "ssae"}
    assert loaded.calibration("fp32").image_estimate.n_images <= 25
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["e"]  # no scratch, no checkpoint


@pytest.mark.parametrize(
    ("members", "changes", "match"),
    [
        (("fyd",), {}, "at least two different methods, got fyd"),
        (("fyd", "fyd"), {}, "at least two different methods, got fyd,fyd"),
        (("fyd", "magic"), {}, "--method magic: unknown"),
        (("fyd", "igd"), {"objective": "1"}, "--objective: not an option of any of fyd, igd"),
    ],
)
def test_an_ensemble_that_cannot_be_trained_is_refused_at_once(parts, tmp_path, members, changes, match):
    options = replace(TrainOptions(data=parts, out=tmp_path / "out"), **changes)
    with pytest.raises(UsageError, match=match):
        ensemble.train(options, members, None, OPEN, RecordedProgress())
    assert not list(tmp_path.iterdir())
