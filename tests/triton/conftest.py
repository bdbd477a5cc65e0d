"""A real tritonserver on the small detector, one for all tests that leave it as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tritonclient.grpc as grpc

from engine import bundle as bundles
from engine.bundle import Bundle
from engine.export import registry
from engine.export.base import ExportOptions
from engine.triton.repository import Repository
from engine.triton.server import Running, Server


@pytest.fixture(scope="session", autouse=True)
def state(tmp_path_factory) -> Iterator[Path]:
    """Servers of tests are remembered apart from those of whoever runs the tests."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def export() -> Callable[[Bundle, Path], dict]:
    """`engine export BUNDLE --target triton --out DIR`, of a bundle that need not lie on the disk as it is."""

    def recalibrate(*_: object) -> None:
        pytest.fail("nothing is to be recalibrated for Triton")

    return lambda bundle, out, **more: registry.get("triton").export(ExportOptions(bundle, out, recalibrate, **more))


@pytest.fixture(scope="session")
def bundle(tiny) -> Bundle:
    return bundles.read(tiny.path)


@pytest.fixture(scope="session")
def other(bundle) -> Bundle:
    """The same network with a threshold that makes every picture anomalous: another version."""
    executable = bundle.executable("fp32")
    scale = msgspec.structs.replace(executable.calibration.image, threshold=0.01)
    calibration = msgspec.structs.replace(executable.calibration, image=scale)
    executables = {"fp32": msgspec.structs.replace(executable, calibration=calibration)}
    return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, version="2", executables=executables))


@pytest.fixture(scope="session")
def repository(bundle, export, tmp_path_factory) -> Repository:
    path = tmp_path_factory.mktemp("triton") / "repository"
    export(bundle, path)
    return Repository(path)


@pytest.fixture(scope="session")
def running(repository) -> Iterator[Running]:
    """The server on `repository`, which no test changes."""
    server = Server(repository)
    yield server.up()
    server.down()


@pytest.fixture
def client(running) -> Iterator[grpc.InferenceServerClient]:
    with grpc.InferenceServerClient(running.grpc) as client:
        yield client


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def ask() -> Callable[..., grpc.InferResult]:
    """Ask a model about pictures: `ask(client, model, images)`."""

    def ask(client, model, images, name="IMAGE", datatype="UINT8"):
        tensor = grpc.InferInput(name, list(images.shape), datatype)
        tensor.set_data_from_numpy(images)
        return client.infer(model, [tensor])

    return ask
