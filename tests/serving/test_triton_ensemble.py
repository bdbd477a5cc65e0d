"""An ensemble's bundle in a real server: each member, and all of them fused, as they are in process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
import tritonclient.grpc as grpc

from engine import bundle as bundles
from engine.bundle import Bundle
from engine.cli import main
from engine.config import Runtime, Triton, parse
from engine.decide import decide
from engine.errors import BackendAwayError
from engine.metrics import Metrics
from engine.pipeline import Pipeline
from engine.pipeline.lines import load_all
from engine.serving.select import open_local, open_predictor
from engine.streams.redis import connect
from engine.triton.repository import Repository
from engine.triton.server import Running, Server


@pytest.fixture(scope="module")
def duo(make_ensemble) -> Bundle:
    """Members of 32 and 64 px, two of which share a network."""
    return bundles.read(make_ensemble())


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)


def export(bundle: Bundle, out: Path) -> None:
    assert main(["export", str(bundle.path), "--target", "triton", "--out", str(out)]) == 0


@pytest.fixture(scope="module")
def running(duo, tmp_path_factory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("duo")
    export(duo, folder / "repository")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        server = Server(Repository(folder / "repository"))
        yield server.up()
        server.down()


@pytest.fixture(scope="module")
def served(running) -> Iterator[grpc.InferenceServerClient]:
    with grpc.InferenceServerClient(running.grpc) as client:
        yield client


def ask(client, model: str, images: np.ndarray) -> grpc.InferResult:
    tensor = grpc.InferInput("IMAGE", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images)
    return client.infer(model, [tensor])


@pytest.fixture(scope="module")
def expected(duo, images):
    """In process, on sheets whose smaller pictures are made from the larger ones, as Triton gets no others."""
    sheets = np.stack([duo.sheet.fit(image) for image in images])
    return open_local(duo, "onnx", "fp32", threads=1).predict(sheets)


def test_detector_fuses_its_members_as_the_engine_does(served, duo, images, expected):
    found = ask(served, "detector", images)
    np.testing.assert_allclose(found.as_numpy("raw_score")[:, 0], expected.scores, rtol=1e-3)
    calibration = duo.calibration("fp32")
    decisions = [
        decide(score, raw_map, calibration, (64, 64))
        for score, raw_map in zip(expected.scores, expected.maps, strict=True)
    ]
    np.testing.assert_allclose(found.as_numpy("pred_score")[:, 0], [d.pred_score for d in decisions], rtol=1e-3)
    np.testing.assert_allclose(found.as_numpy("anomaly_map") * 65535, [d.anomaly_map for d in decisions], atol=2)


@pytest.mark.parametrize("name", ["grey", "mixed", "twin"])
def test_each_member_is_a_model_of_its_name(served, images, expected, name):
    found = ask(served, name, images).as_numpy("raw_score")
    np.testing.assert_allclose(found[:, 0], expected.members[name], rtol=1e-3)


def test_the_new_version_of_an_ensemble_takes_its_models_along(duo, tiny, tmp_path):
    path = tmp_path / "repository"
    export(duo, path)
    assert {"grey", "mixed", "twin", "detector"} <= {folder.name for folder in path.iterdir()}
    for _ in range(2):
        export(bundles.read(tiny.path), path)
    assert set(Repository(path).all_models()) == {folder.name for folder in path.iterdir()}
    assert not (path / "grey").exists()


@pytest.fixture(scope="module")
def sheets(duo) -> np.ndarray:
    """Whose smaller pictures are not made from the larger ones."""
    pictures = np.random.default_rng(6).integers(0, 256, (19, 96, 80, 3), dtype=np.uint8)
    return np.stack([duo.sheet.fit(picture) for picture in pictures])


@pytest.mark.parametrize("shared_memory", ["system", "off"])
def test_the_engine_asks_for_the_members_and_fuses_them_itself(running, duo, sheets, shared_memory):
    """Each from the camera's picture at its own size: the in-process scores, in one step and in a cascade's two."""
    triton = Triton(url=running.grpc, shared_memory=shared_memory)
    ensemble = open_predictor(duo, Runtime(backend="triton"), 8, triton)
    expected = open_local(duo, "onnx", "fp32", threads=1).predict(sheets)
    whole, first = ensemble.predict(sheets), ensemble.screen(sheets)
    assert (ensemble.backend, list(first.members)) == ("triton", ["grey"])
    for found in (whole, ensemble.complete(sheets, first)):
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-3)
        np.testing.assert_allclose(found.maps, expected.maps, rtol=1e-3, atol=1e-4)
        for name in expected.members:
            np.testing.assert_allclose(found.members[name], expected.members[name], rtol=1e-3)
    ensemble.close()


def test_a_member_that_is_not_served_is_named_and_waited_for(running, make_ensemble, sheets):
    other = bundles.read(make_ensemble(order=("twin", "grey")))
    moved = replace(other, members={**other.members, "grey": renamed(other.members["grey"], "grey-2")})
    ensemble = open_predictor(moved, Runtime(backend="triton"), 8, Triton(url=running.grpc))
    with pytest.raises(BackendAwayError, match=r"does not serve grey-2@1 in fp32 .*engine export"):
        ensemble.predict(sheets)
    ensemble.close()


def renamed(bundle: Bundle, name: str) -> Bundle:
    return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, name=name))


def test_members_fall_back_to_this_process_where_that_is_configured(duo, sheets):
    ensemble = open_predictor(duo, Runtime(backend="triton", threads=1), 8, Triton(url="127.0.0.1:9", fallback="onnx"))
    expected = open_local(duo, "onnx", "fp32", threads=1).predict(sheets)
    np.testing.assert_allclose(ensemble.predict(sheets).scores, expected.scores, rtol=1e-9)
    assert ensemble.backend == "triton, else onnx"
    ensemble.close()


def test_a_line_is_served_with_a_cascade(running, duo, line):
    """As `engine serve` opens it: each frame ends once, with the in-process score of the members that ran."""
    document = {
        "line": [{"name": line.name, "bundle": str(duo.path), "review": 0.09}],
        "redis": {"url": line.url, "prefix": line.prefix},
        "runtime": {"backend": "triton", "cascade": 0.01},
        "triton": {"url": running.grpc},
    }
    config = parse(document, where=Path("(test)"))
    random = np.random.default_rng(0)
    pushed = {}
    for level in random.integers(20, 200, 40):
        image = np.clip(random.normal(level, 10, (70, 90, 3)), 0, 255).astype(np.uint8)
        pushed[line.push(data=cv2.imencode(".png", image[..., ::-1])[1].tobytes())] = duo.sheet.fit(image)
    (loaded,) = load_all(config)
    with connect(config) as streams:
        Pipeline(streams.source, streams.sink, loaded.watches(config), config, Metrics()).run(burst=True)
    loaded.predictor.close()
    assert line.ends() == sorted(pushed)
    assert line.dead() == []
    local = open_local(duo, "onnx", "fp32", threads=1)
    results = {result.frame: result for result in line.results()}
    assert {len(result.scores) for result in results.values()} == {1, 3}
    for frame, sheet in pushed.items():
        raw = local.predict(sheet[np.newaxis]) if len(results[frame].scores) == 3 else local.screen(sheet[np.newaxis])
        assert results[frame].raw_score == pytest.approx(raw.scores[0], rel=1e-3)
