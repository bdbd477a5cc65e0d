"""An ensemble against its members run one by one and fused in float64."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
import onnx
import pytest

from engine import bundle as bundles
from engine.api import load
from engine.bundle import sha256
from engine.cascade import Limit
from engine.cli import main
from engine.config import Runtime, parse
from engine.decide import with_thresholds
from engine.errors import BundleError, ConfigError
from engine.export import registry
from engine.export.base import ExportOptions
from engine.metrics import Metrics
from engine.pipeline import Pipeline
from engine.pipeline.lines import load_all
from engine.plans import record as records
from engine.serving.base import RawBatch
from engine.serving.ensemble import Cascade
from engine.serving.select import choose_backend, local_backends, open_cascade, open_local, open_predictor
from engine.serving.timing import frames_per_s
from engine.streams.redis import connect


@pytest.fixture
def sheets(duo):
    fit = bundles.read(duo).sheet.fit
    random = np.random.default_rng(3)
    coarse = random.integers(60, 200, (6, 5, 5, 3), dtype=np.uint8)
    return np.stack([fit(cv2.resize(each, (90, 70), interpolation=cv2.INTER_CUBIC)) for each in coarse])


def alone(path, name, sheets):
    """A member's own bundle on its own view."""
    whole = bundles.read(path)
    own = bundles.read(path / "members" / name)
    return open_local(own, "onnx", "fp32", 1).predict(whole.sheet.view(sheets, own.sheet.sizes[0]))


def test_score_and_map_are_the_weighted_mean_of_the_members_surprises(duo, sheets):
    found = open_local(bundles.read(duo), "onnx", "fp32", threads=1).predict(sheets)
    spec = bundles.read(duo).ensemble("fp32")
    raws = [alone(duo, member.name, sheets) for member in spec.members]
    images = [m.image.of(raw.scores) for m, raw in zip(spec.members, raws, strict=True)]
    np.testing.assert_allclose(found.scores, np.average(images, axis=0, weights=[1, 2, 1]), rtol=1e-12)
    maps = [
        [cv2.resize(one, (64, 64)) for one in m.pixel.of(raw.maps.astype(np.float64))]
        for m, raw in zip(spec.members, raws, strict=True)
    ]
    assert found.maps.shape == (6, 64, 64)
    assert found.maps.dtype == np.float32
    np.testing.assert_allclose(found.maps, np.average(maps, axis=0, weights=[1, 2, 1]), rtol=1e-4)
    assert list(found.members) == ["grey", "mixed", "twin"]
    for name, raw in zip(found.members, raws, strict=True):
        np.testing.assert_array_equal(found.members[name], raw.scores)


def test_backends_agree(duo, sheets):
    first, *others = [open_local(bundles.read(duo), name, "fp32", 1).predict(sheets) for name in local_backends()]
    assert np.ptp(first.scores) > 0.1
    for other in others:
        np.testing.assert_allclose(other.scores, first.scores, rtol=1e-3)
        np.testing.assert_allclose(other.maps, first.maps, rtol=1e-3)


@pytest.mark.parametrize("rule", ["mean", "max"])
def test_screening_and_completing_is_predicting(make_ensemble, sheets, rule):
    ensemble = open_local(bundles.read(make_ensemble(rule=rule)), "onnx", "fp32", threads=1)
    screening = Cascade(ensemble, Limit(0.8, 0.002, "conformal", 2000)).screen(sheets)
    assert list(screening.raw.members) == ["grey"]
    assert screening.exits.tolist() == (screening.raw.scores <= 0.8).tolist()
    whole, completed = ensemble.predict(sheets), ensemble.complete(sheets, screening.raw)
    np.testing.assert_allclose(completed.scores, whole.scores, rtol=1e-12)
    np.testing.assert_allclose(completed.maps, whole.maps, rtol=1e-5)
    assert list(completed.members) == list(whole.members)


def test_what_networks_have_in_common_is_handed_from_one_to_the_next(duo, sheets):
    bundle = bundles.read(duo)
    networks = [member.network for member in bundle.ensemble("fp32").members]
    assert [network and network.path for network in networks] == [None, "mixed.fp32.onnx", "twin.fp32.onnx"]
    mixed, twin = (onnx.load(bundle.file(network)).graph for network in networks[1:])
    assert [node.op_type for node in twin.node] == ["Identity"]
    assert [given.name for given in twin.input] == [mixed.output[-1].name]
    found = open_local(bundle, "onnx", "fp32", threads=1).predict(sheets)
    np.testing.assert_array_equal(found.members["mixed"], found.members["twin"])


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize("n", [1, 6])
def test_a_cascade_hands_it_over_too(make_ensemble, pictures, backend, n):
    """A first member that gives, and a second that only takes: it gets no pictures to look at."""
    bundle = bundles.read(make_ensemble(order=("twin", "mixed")))
    ensemble = open_local(bundle, backend, "fp32", threads=2)
    first = ensemble.screen(pictures[:n])
    assert [array.shape for array in first.common.values()] == [(n, 4, 8, 8)]
    completed = ensemble.complete(np.zeros_like(pictures[:n]), first)
    np.testing.assert_allclose(completed.scores, ensemble.predict(pictures[:n]).scores, rtol=1e-12)


def test_frames_of_several_screened_batches_are_completed_in_others(make_ensemble, pictures):
    """What they go on from goes with them."""
    ensemble = open_local(bundles.read(make_ensemble(order=("twin", "mixed"))), "onnx", "fp32", threads=2)
    screened = [ensemble.screen(pictures[rows]) for rows in (slice(0, 4), slice(4, 6))]
    escalated = np.array([True, False, True, False, True, True])
    waiting = RawBatch.joined(screened).at(escalated)
    completed = ensemble.complete(pictures[:6][escalated], waiting)
    np.testing.assert_allclose(completed.scores, ensemble.predict(pictures[:6][escalated]).scores, rtol=1e-6)
    assert set(completed.members) == {"twin", "mixed"}


def test_it_is_loaded_like_any_bundle(duo, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle = bundles.read(duo)
    assert bundle.precisions == ("fp32",)
    assert bundle.sheet.sizes == ((32, 32), (64, 64))
    predictor = open_predictor(bundle, Runtime(backend="onnx", threads=1), batch_size=2)
    assert (predictor.backend, predictor.precision) == ("onnx", "fp32")
    sheets = np.stack([bundle.sheet.fit(picture) for picture in pictures[:2]])
    assert frames_per_s(predictor, sheets, budget_s=0.01) > 0
    predictor.close()
    assert set(choose_backend(bundle, Runtime(threads=1), batch_size=2).frames_per_s) == set(local_backends())
    with load(duo, backend="onnx", threads=1) as model:
        result = model.predict([pictures[0]])[0]
    members = bundle.calibrations("fp32")
    assert set(result.scores) == set(members) == {"grey", "mixed", "twin"}
    assert result.model == "duo@1"
    with pytest.raises(BundleError, match=r"no int8 executable was calibrated .*it has: fp32"):
        open_predictor(bundle, Runtime(backend="onnx", precision="int8"), batch_size=2)


def test_the_cascade_follows_the_configuration_and_the_thresholds(duo):
    """Its frames' first surprise is their fused score, so a limit above none but below the level lets all good exit."""
    bundle = bundles.read(duo)
    predictor = open_local(bundle, "onnx", "fp32", threads=1)
    calibration = bundle.calibration("fp32")
    calibration = msgspec.structs.replace(calibration, image=msgspec.structs.replace(calibration.image, threshold=2.0))
    assert open_cascade(bundle, predictor, Runtime(cascade="off"), calibration) is None
    whole = open_cascade(bundle, predictor, Runtime(), calibration).limit
    assert (whole.bound, whole.how, whole.n) == (0.002, "conformal", 2000)
    assert whole.surprise == np.nextafter(2.0, 0)
    stricter = with_thresholds(calibration, review=0.3, reject=None)
    assert open_cascade(bundle, predictor, Runtime(cascade=0.01), stricter).limit.surprise < stricter.review < 2.0
    single = bundle.members["grey"]
    assert open_cascade(single, open_local(single, "onnx", "fp32", 1), Runtime(), calibration) is None


def test_it_serves_a_line_of_which_only_some_frames_need_every_member(line, duo):
    """On a real server, as `engine serve` opens it: every frame ends once, with what a full run says where all ran."""
    watched = {"name": line.name, "bundle": str(duo), "review": 0.09}
    document = {
        "line": [watched],
        "redis": {"url": line.url, "prefix": line.prefix},
        "runtime": {"backend": "onnx", "threads": 1, "cascade": 0.01},
    }
    config = parse(document, where=Path("(test)"))
    (watch,) = load_all(config)[0].watches(config)
    limit = watch.cascade.limit.surprise
    assert 0.1 < limit < watch.calibration.review < watch.calibration.image.threshold == 6.0
    random = np.random.default_rng(0)
    pushed = {}
    for level in random.integers(20, 200, 120):
        image = np.clip(random.normal(level, 10, (70, 90, 3)), 0, 255).astype(np.uint8)
        pushed[line.push(data=cv2.imencode(".png", image[..., ::-1])[1].tobytes())] = watch.sheet.fit(image)
    with connect(config) as streams:
        Pipeline(streams.source, streams.sink, [watch], config, Metrics()).run(burst=True)
    assert line.ends() == sorted(pushed)
    assert line.dead() == []
    whole = watch.predictor.predict(np.stack(list(pushed.values())))
    first = watch.predictor.screen(np.stack(list(pushed.values()))).scores
    results = {result.frame: result for result in line.results()}
    for i, frame in enumerate(pushed):
        result, exits = results[frame], first[i] <= limit
        assert set(result.scores) == ({"grey"} if exits else {"grey", "mixed", "twin"})
        assert result.raw_score == pytest.approx(first[i] if exits else whole.scores[i], rel=1e-9)
        assert result.decision == ("good" if exits else verdict_of(whole.scores[i], watch.calibration))
    assert {len(result.scores) for result in results.values()} == {1, 3}


def test_thresholds_in_the_wrong_order_are_refused(duo):
    line = {"name": "a", "bundle": str(duo), "review": 0.6}
    config = parse({"line": [line], "runtime": {"backend": "onnx"}}, where=Path("(test)"))
    with pytest.raises(ConfigError, match=r"line a: review: expected a score below the reject threshold 0.5, got 0.6"):
        load_all(config)[0].watches(config)


def verdict_of(score, calibration):
    if score >= calibration.image.threshold:
        return "reject"
    return "review" if score >= calibration.review else "good"


@pytest.mark.parametrize(
    "victim", ["members/grey/network.onnx", "members/mixed/bundle.json", "frames", "mixed.fp32.onnx"]
)
def test_a_damaged_or_missing_part_is_refused(make_ensemble, victim):
    path = make_ensemble()
    (path / victim).write_bytes((path / victim).read_bytes() + b" ")
    with pytest.raises(BundleError, match=r"SHA-256 is"):
        bundles.read(path)
    (path / victim).unlink()
    with pytest.raises(BundleError, match=victim.rpartition("/")[2]):
        bundles.read(path)


def edited(path, change):
    document = json.loads((path / "bundle.json").read_text())
    change(document)
    (path / "bundle.json").write_text(json.dumps(document))
    return path


def test_a_member_outside_the_folder_is_refused(make_ensemble):
    def outside(document):
        document["ensembles"]["fp32"]["members"][0]["manifest"]["path"] = "../duo/members/grey/bundle.json/../../../.."

    with pytest.raises(BundleError, match="outside the bundle"):
        bundles.read(edited(make_ensemble(), outside))


def test_an_ensemble_in_an_ensemble_is_refused(make_ensemble, duo):
    path = make_ensemble()
    inner = path / "members" / "grey" / "bundle.json"
    inner.write_bytes((duo / "bundle.json").read_bytes())

    def rehash(document):
        file = document["ensembles"]["fp32"]["members"][0]["manifest"]
        file["sha256"], file["bytes"] = sha256(inner), inner.stat().st_size

    with pytest.raises(BundleError, match="member grey is an ensemble itself"):
        bundles.read(edited(path, rehash))


def test_a_tail_that_falls_is_refused(make_ensemble):
    def fall(document):
        document["ensembles"]["fp32"]["members"][0]["image"]["knots"][1] = -1

    with pytest.raises(BundleError, match="must ascend"):
        bundles.read(edited(make_ensemble(), fall))


def test_a_manifest_with_neither_is_refused(duo, make_ensemble):
    with pytest.raises(BundleError, match="either executables or ensembles"):
        bundles.read(edited(make_ensemble(), lambda document: document.update(ensembles={})))


def test_a_single_model_has_no_members(duo):
    single = bundles.read(duo).members["grey"]
    assert (single.members, single.calibrations("fp32")) == ({}, {})
    assert single.calibration("fp32") == single.executable("fp32").calibration
    assert replace(single, members={}) == single


@pytest.mark.parametrize("target", ["onnx", "openvino"])  # triton serves it whole, tensorrt each of its members
def test_exports_are_of_one_model_and_say_where_the_members_are(duo, tmp_path, target):
    options = ExportOptions(bundles.read(duo), tmp_path / "out", recalibrate=lambda *_: pytest.fail("not reached"))
    with pytest.raises(BundleError, match=r"is an ensemble, and one model is wanted here; .*/members/mixed"):
        registry.get(target).export(options)
    assert not (tmp_path / "out").exists()


def test_the_command_says_so_too(duo, tmp_path, capsys):
    assert main(["export", str(duo), "--target", "onnx", "--out", str(tmp_path / "out")]) == 2
    assert f"is an ensemble, and one model is wanted here; name one of its members: {duo}/members/grey" in " ".join(
        capsys.readouterr().err.split()
    )


def test_plans_are_built_for_every_member(duo, sheets, tmp_path, capsys):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no package for this platform")
    given = ["--target", "tensorrt", "--batch", "1,1,2", "--out", str(tmp_path / "out"), "--json"]
    assert main(["export", str(duo), *given]) == 0
    document, exported = json.loads(capsys.readouterr().out), bundles.read(tmp_path / "out")
    assert set(document["members"]) == {"grey", "mixed", "twin"}
    for name, member in exported.members.items():
        record = records.read(member.path / "network.plan")
        assert record.network_sha256 == sha256(duo / "members" / name / "network.onnx")
        assert record.batch == (1, 1, 2)
        assert document["members"][name]["build"]["plan_sha256"] == sha256(member.path / "network.plan")
    assert {file["path"] for file in document["files"]} == {
        path.relative_to(exported.path).as_posix() for path in exported.path.rglob("*") if path.is_file()
    }
    a, b = (open_local(each, "onnx", "fp32", threads=1).predict(sheets) for each in (bundles.read(duo), exported))
    np.testing.assert_array_equal(a.maps, b.maps)


def test_plans_of_another_precision_would_need_other_thresholds(duo, tmp_path, capsys):
    given = ["--target", "tensorrt", "--precision", "fp16", "--out", str(tmp_path / "out")]
    assert main(["export", str(duo), *given]) == 2
    assert "thresholds in fp16 would have to be set again for all members together" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not list(tmp_path.iterdir())
