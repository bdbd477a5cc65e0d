"""Drift on a real server, from a bundle to results, metrics and the log."""

from __future__ import annotations

import shutil

import cv2
import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from engine import bundle as bundles
from engine.appearance import NAMES, appearance
from engine.config import Config, Drift, Line, Runtime
from engine.metrics import Metrics
from engine.pipeline import Pipeline, lines
from engine.streams.redis import connect

WINDOW = 64


def pictures(n: int, seed: int, level: int = 0) -> np.ndarray:
    """(n, 64, 64, 3) like those that the small detector knows, made darker by `level`."""
    drawn = np.random.default_rng(seed).integers(90, 160, (n, 64, 64, 3))
    drift = np.random.default_rng(seed + 1).normal(0, 2, (n, 1, 1, 1))
    return np.clip(drawn + drift - level, 0, 255).astype(np.uint8)


@pytest.fixture
def place(tiny, tmp_path):
    """The small detector with a reference, as training would have left it."""
    path = tmp_path / "part"
    shutil.copytree(tiny.path, path)
    good = pictures(100, 0)
    loaded = lines.load_all(config_of(path))[0]
    looks = np.array([appearance(picture) for picture in good])
    columns = {name: np.ascontiguousarray(looks[:, i]) for i, name in enumerate(NAMES)}
    save_file({"score": loaded.predictor.predict(good).scores, **columns}, path / "reference.safetensors")
    loaded.predictor.close()
    manifest = loaded.bundle.manifest
    file = bundles.describe(path / "reference.safetensors", path)
    executable = msgspec.structs.replace(manifest.executables["fp32"], reference=file)
    bundles.write_manifest(path, msgspec.structs.replace(manifest, executables={"fp32": executable}))
    return path


def config_of(path, base=None, **drift):
    names = ("steady", "darker") if base is None else tuple(line.name for line in base.line)
    changes = {
        "line": tuple(Line(name, str(path)) for name in names),
        "runtime": Runtime(backend="onnx", threads=1),
        "drift": Drift(window=WINDOW, **drift),
    }
    if base is None:
        return Config(**changes)
    return msgspec.structs.replace(base, **changes)


def push(line, images, camera="cam1"):
    for image in images:
        line.push(data=cv2.imencode(".png", image)[1].tobytes(), camera=camera)


def serve(config) -> Metrics:
    """Until the streams are empty; what was measured."""
    metrics = Metrics()
    loaded = lines.load_all(config)
    with connect(config) as streams:
        watches = [watch for one in loaded for watch in one.watches(config)]
        Pipeline(streams.source, streams.sink, watches, config, metrics).run(burst=True)
    for one in loaded:
        one.predictor.close()
    return metrics


def sample(metrics, line, signal, camera="cam1"):
    labels = {"line": line.name, "camera": camera, "signal": signal}
    return metrics.registry.get_sample_value("engine_drift", labels)


def test_a_line_that_gets_darker_is_signalled_and_one_that_does_not_is_not(line, make_config, place, caplog):
    caplog.set_level("INFO")
    steady, darker = line.beside("steady"), line.beside("darker")
    push(steady, pictures(300, 10))
    push(darker, pictures(100, 20))
    push(darker, pictures(200, 30, level=25))
    push(darker, pictures(100, 40), camera="cam2")
    metrics = serve(config_of(place, make_config(steady, darker)))
    assert len(steady.results()) == 300
    assert not any(result.drift for result in steady.results())
    found = [result for result in darker.results() if result.drift is not None]
    assert {result.camera for result in found} == {"cam1"}
    assert 100 < len(found) < 200  # seen before all of the window was dark
    assert "brightness" in found[-1].drift.signals
    assert 0 <= found[-1].drift.false_alarm_rate <= 1
    assert (sample(metrics, darker, "brightness"), sample(metrics, steady, "brightness")) == (1, 0)
    assert sample(metrics, darker, "brightness", "cam2") == 0
    told = [record.getMessage() for record in caplog.records if "drift" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("darker cam1: drift begins")
    assert "brightness lower" in told[0]


def test_a_bundle_without_a_reference_says_so_and_serves(line, make_config, tiny, caplog):
    caplog.set_level("INFO")
    push(line, pictures(3, 0, level=60))
    serve(config_of(tiny.path, make_config(line)))
    assert [result.drift for result in line.results()] == [None] * 3
    told = [record.getMessage() for record in caplog.records if "drift" in record.getMessage()]
    assert told == ["line1: drift is not watched: tiny@1 keeps no training reference; train it again"]


def test_switched_off_nothing_is_watched(line, make_config, place):
    push(line, pictures(100, 0, level=60))
    metrics = serve(config_of(place, make_config(line), enabled=False))
    assert not any(result.drift for result in line.results())
    assert sample(metrics, line, "brightness") is None
