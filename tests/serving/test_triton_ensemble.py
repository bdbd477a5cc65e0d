"""An ensemble's bundle in a real server: each member, and all of them fused, as they are in process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc

from engine import bundle as bundles
from engine.bundle import Bundle
from engine.decide import decide
from engine.export import registry
from engine.export.base import ExportOptions
from engine.serving.select import open_local
from engine.triton.repository import Repository
from engine.triton.server import Server


@pytest.fixture(scope="module")
def duo(make_ensemble) -> Bundle:
    """Members of 32 and 64 px, two of which share a network."""
    return bundles.read(make_ensemble())


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)


def export(bundle: Bundle, out: Path) -> None:
    options = ExportOptions(bundle, out, recalibrate=lambda *_: pytest.fail("nothing is to be recalibrated"))
    registry.get("triton").export(options)


@pytest.fixture(scope="module")
def served(duo, tmp_path_factory) -> Iterator[grpc.InferenceServerClient]:
    folder = tmp_path_factory.mktemp("duo")
    export(duo, folder / "repository")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        server = Server(Repository(folder / "repository"))
        with grpc.InferenceServerClient(server.up().grpc) as client:
            yield client
        server.down()


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
