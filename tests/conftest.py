"""Shared fixtures: one embedded server per session, lines of their own per test, frames and calibrations."""

from __future__ import annotations

import itertools
import pickle
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import hypothesis
import numpy as np
import onnx
import pytest
import redis
from filelock import FileLock
from onnx import TensorProto, helper

import kernels
from engine import bundle as bundles
from engine import config as settings
from engine.codec import DeadEntry, decode_dead, decode_result, encode_frame
from engine.config import Config
from engine.contract import Calibration, Estimate, Executable, Input, Manifest, Scale, TrainingData
from engine.metrics import Metrics
from engine.pipeline import Pipeline, Watch
from engine.serving.base import ConstantPredictor, Predictor
from engine.sheet import Sheet
from engine.streams.embedded import EmbeddedServer
from engine.streams.keys import GROUP, LineKeys, line_keys
from engine.streams.redis import connect
from engine.types import Frame, Result

hypothesis.settings.register_profile("engine", deadline=None, database=None)
hypothesis.settings.load_profile("engine")


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id) -> Callable[[str, Callable[[Path], object]], object]:
    """Has something made in a folder by the first of the run's processes that asks for it; the others get the same."""
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "once"

    def get(name: str, make: Callable[[Path], object]) -> object:
        folder, answer = root / name, root / f"{name}.pickle"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{name}.lock"):
            if not answer.exists():
                answer.write_bytes(pickle.dumps(make(folder)))
        return pickle.loads(answer.read_bytes())

    return get


def png(level: int, side: int = 32) -> bytes:
    """A grey PNG whose brightness is `level`."""
    return cv2.imencode(".png", np.full((side, side), level, np.uint8))[1].tobytes()


@dataclass(frozen=True)
class Line:
    """A line on a real server: a producer's and a reader's view of it."""

    client: redis.Redis
    url: str
    prefix: str
    name: str

    @property
    def keys(self) -> LineKeys:
        return line_keys(self.prefix, self.name)

    def beside(self, name: str) -> Line:
        """Another line on the same server under the same prefix."""
        return replace(self, name=name)

    def push(self, level: int = 20, **changes: object) -> str:
        """Add a good frame (dark) or an anomalous one (bright); returns its entry id."""
        return self.push_fields(self._fields(level, **changes))

    def push_at_once(self, n: int) -> list[str]:
        """Add n good frames in one transaction: whoever reads the first can read them all."""
        together = self.client.pipeline(transaction=True)
        for _ in range(n):
            together.xadd(self.keys.frames, self._fields(20))
        return [entry.decode() for entry in together.execute()]

    def _fields(self, level: int, **changes: object) -> dict[str, bytes]:
        frame = Frame(**{"camera": "cam1", "ts_ns": time.time_ns(), "codec": "png", "data": png(level), **changes})
        return encode_frame(frame)

    def push_fields(self, fields: dict[str, bytes]) -> str:
        return self.client.xadd(self.keys.frames, fields).decode()

    def results(self) -> list[Result]:
        return [decode_result(fields) for _, fields in self.client.xrange(self.keys.results)]

    def dead(self) -> list[DeadEntry]:
        return [decode_dead(fields) for _, fields in self.client.xrange(self.keys.dead)]

    def ends(self) -> list[str]:
        """The frames' entry ids in both outputs, sorted: exactly-once is that this equals what was pushed."""
        return sorted([result.frame for result in self.results()] + [dead.frame for dead in self.dead()])

    def left(self) -> int:
        """Entries in the frames stream."""
        return self.client.xlen(self.keys.frames)

    def pending(self) -> dict[str, int]:
        """Deliveries of each pending entry; none before there is a group."""
        try:
            rows = self.client.xpending_range(self.keys.frames, GROUP, "-", "+", 1000)
        except redis.ResponseError:
            return {}
        return {row["message_id"].decode(): row["times_delivered"] for row in rows}


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as running:
        yield running


@pytest.fixture
def make_line() -> Iterator[Callable[..., Line]]:
    """Lines on a given server, each under a prefix of its own."""
    clients = []

    def make(on: EmbeddedServer, name: str = "line1", prefix: str | None = None) -> Line:
        clients.append(on.client())
        return Line(clients[-1], on.url, prefix or f"t-{uuid.uuid4().hex[:8]}", name)

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def line(server: EmbeddedServer, make_line: Callable[..., Line]) -> Line:
    return make_line(server)


@pytest.fixture
def calibration() -> Calibration:
    """Brightness above one half is anomalous."""
    estimate = Estimate(
        target_fpr=0.01, how="k-fold", guarantee=False, n_images=50, folds=5, interval=(0.0, 0.1), note="test"
    )
    scale = Scale(threshold=0.5, width=0.1)
    return Calibration(image=scale, pixel=scale, image_estimate=estimate, pixel_estimate=estimate)


@pytest.fixture
def make_watch(calibration: Calibration) -> Callable[..., Watch]:
    def make(line: str = "line1", predictor: Predictor | None = None, **changes: object) -> Watch:
        values = {"model": "test@1", "method": "constant", "calibration": calibration, "sheet": Sheet(((32, 32),))}
        return Watch(line=line, predictor=predictor or ConstantPredictor(), **{**values, **changes})

    return make


@pytest.fixture
def make_config() -> Callable[..., Config]:
    """A configuration of lines on one server; keywords are the sections' keys."""

    def make(*lines: Line, **keys: object) -> Config:
        sections = {"batch": settings.Batch, "delivery": settings.Delivery, "publish": settings.Publish}
        values = {
            name: section(**{key: keys.pop(key) for key in section.__struct_fields__ if key in keys})
            for name, section in sections.items()
        }
        assert not keys, f"no such keys: {keys}"
        return Config(
            redis=settings.Redis(url=lines[0].url, prefix=lines[0].prefix),
            line=tuple(settings.Line(name=line.name, bundle="unused") for line in lines),
            **values,
        )

    return make


@pytest.fixture
def run_burst(make_watch: Callable[..., Watch]) -> Callable[..., Metrics]:
    """Run a pipeline of a configuration's lines until their streams are empty."""

    def run(config: Config, predictor: Predictor | None = None, **changes: object) -> Metrics:
        metrics = Metrics()
        with connect(config) as streams:
            watches = [make_watch(line.name, predictor, **changes) for line in config.line]
            Pipeline(streams.source, streams.sink, watches, config, metrics).run(burst=True)
        return metrics

    return run


def wait_until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Poll until a condition holds; fail with its source line where it does not in time."""
    deadline_s = time.monotonic() + timeout_s
    for pause_s in itertools.chain([0.002] * 50, itertools.repeat(0.02)):
        if condition():
            return
        if time.monotonic() > deadline_s:
            pytest.fail(f"waited {timeout_s} s in vain")
        time.sleep(pause_s)


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., None]:
    return wait_until


SIDE, GRID, CHANNELS = 64, 8, 4


def network(path):
    """(N, 64, 64, 3) uint8 -> features (N, 4, 8, 8): local means of mixed colours."""
    mix = np.random.default_rng(0).normal(size=(CHANNELS, 3, 1, 1)).astype(np.float32) / 50
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["chw"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["chw"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Conv", ["pooled", "mix"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", CHANNELS, GRID, GRID])],
        [onnx.numpy_helper.from_array(mix, "mix")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return mix


@dataclass(frozen=True)
class Tiny:
    path: Path
    mix: np.ndarray

    def features(self, images):
        """The network's features in float64."""
        n = len(images)
        pooled = images.astype(np.float64).reshape(n, GRID, 8, GRID, 8, 3).mean(axis=(2, 4))  # (N, h, w, 3)
        return np.einsum("nhwc,kc->nkhw", pooled, self.mix[:, :, 0, 0].astype(np.float64))


@pytest.fixture(scope="session")
def pictures():
    return np.random.default_rng(1).integers(90, 160, (40, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, pictures):
    """The small detector as a bundle."""
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    with bundles.writing(path) as folder:
        mix = network(folder / "network.onnx")
        gaussian = kernels.fit(Tiny(path, mix).features(pictures).astype(np.float32), eps=0.01)
        gaussian.save(folder / "gaussian.safetensors")
        bundles.write_manifest(folder, _manifest(folder))
    return Tiny(path, mix)


def _manifest(folder):
    estimate = Estimate(
        target_fpr=0.01, how="k-fold", guarantee=False, n_images=40, folds=5, interval=(0.0, 0.1), note="a test"
    )
    executable = Executable(
        network=bundles.describe(folder / "network.onnx", folder),
        gaussian=bundles.describe(folder / "gaussian.safetensors", folder),
        calibration=Calibration(
            image=Scale(threshold=6.0, width=1.0),
            pixel=Scale(threshold=5.0, width=1.0),
            image_estimate=estimate,
            pixel_estimate=estimate,
        ),
    )
    return Manifest(
        name="tiny",
        version="1",
        method="fyd",
        input=Input(height=SIDE, width=SIDE),
        grid=(GRID, GRID),
        smoothing_sigma_px=2.0,
        executables={"fp32": executable},
        training=TrainingData(path="x", n_good=40, sha256="0", height_range=(64, 64), width_range=(64, 64)),
        settings={},
        report={},
        versions={},
    )
