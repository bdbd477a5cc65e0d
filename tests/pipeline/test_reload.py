"""Bundles that are replaced while frames flow: each frame ends once, judged by one version from end to end."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace

import cv2
import msgspec
import numpy as np
import pytest

from engine import bundle as bundles
from engine.config import Line, Runtime
from engine.metrics import Metrics
from engine.pipeline import Pipeline, lines
from engine.pipeline.reload import Reloader
from engine.published import Place
from engine.streams.redis import connect

GREY = cv2.imencode(".png", np.full((64, 64, 3), 125, np.uint8))[1].tobytes()


@pytest.fixture
def versions(tiny, tmp_path):
    """Two versions that judge differently: nothing reaches the threshold of one, everything that of the other."""
    made = bundles.read(tiny.path).manifest
    paths = []
    for version, threshold in (("1", 1e6), ("2", 1e-6)):
        path = tmp_path / f"made-{version}"
        shutil.copytree(tiny.path, path)
        executable = made.executables["fp32"]
        image = msgspec.structs.replace(executable.calibration.image, threshold=threshold)
        calibration = msgspec.structs.replace(executable.calibration, image=image)
        executables = {"fp32": msgspec.structs.replace(executable, calibration=calibration)}
        bundles.write_manifest(path, msgspec.structs.replace(made, version=version, executables=executables))
        paths.append(path)
    return paths


@pytest.fixture
def place(versions, tmp_path):
    place = Place(tmp_path / "live")
    place.publish(versions[0])
    return place


@pytest.fixture
def serving(line, make_config, place):
    """The pipeline, its reloader and a camera, while the block runs; afterwards every frame has ended once."""

    @contextmanager
    def serve(reload_ms: int):
        config = msgspec.structs.replace(
            make_config(line),
            line=(Line("line1", str(place.path)),),
            runtime=Runtime(backend="onnx", threads=1, reload_ms=reload_ms),
        )
        loaded = lines.load_all(config)
        entries: list[str] = []
        done = threading.Event()

        def camera() -> None:
            while not done.wait(0.005):
                entries.append(line.push(data=GREY))

        with connect(config) as streams:
            watches = [watch for one in loaded for watch in one.watches(config)]
            pipeline = Pipeline(streams.source, streams.sink, watches, config, Metrics())
            threads = [threading.Thread(target=pipeline.run), threading.Thread(target=camera)]
            with Reloader(loaded, config, pipeline) as reloader:
                for thread in threads:
                    thread.start()
                try:
                    yield reloader
                finally:
                    done.set()
                    threads[1].join()
                    pipeline.stop()
                    threads[0].join(30)
        again = lines.load_all(config)  # the models of before are closed
        with connect(config) as streams:  # what the stop handed back
            watches = [watch for one in again for watch in one.watches(config)]
            Pipeline(streams.source, streams.sink, watches, config, Metrics()).run(burst=True)
        for one in again:
            one.predictor.close()
        assert line.ends() == sorted(entries)
        assert not line.dead()

    return serve


def judged(line) -> list[str]:
    return [f"{result.model} {result.decision}" for result in line.results()]


def test_a_new_version_and_the_way_back_lose_nothing_and_mix_nothing(
    serving, place, versions, line, wait_until: Callable[..., None]
):
    with serving(reload_ms=20):
        for change, expected in (
            (None, "1 good"),
            (lambda: place.publish(versions[1]), "2 reject"),
            (place.roll_back, "1 good"),
        ):
            if change is not None:
                change()
            wait_until(lambda expected=expected: judged(line)[-3:] == [f"tiny@{expected}"] * 3)
    assert set(judged(line)) == {"tiny@1 good", "tiny@2 reject"}


def test_what_cannot_be_used_is_told_once_and_changes_nothing(
    serving, place, versions, line, caplog, wait_until: Callable[..., None]
):
    with serving(reload_ms=10):
        wait_until(lambda: judged(line))
        path = place.versions / "tiny@1"
        bundles.write_manifest(path, replace_network(bundles.read(path).manifest))
        wait_until(lambda: "stays with tiny@1" in caplog.text)
        count = len(judged(line))
        wait_until(lambda: len(judged(line)) > count + 20)
        place.publish(versions[1])
        wait_until(lambda: judged(line)[-1] == "tiny@2 reject")
    assert caplog.text.count("stays with tiny@1") == 1


def test_thresholds_that_do_not_fit_the_line_leave_the_old_bundle(
    serving, place, versions, line, caplog, wait_until: Callable[..., None]
):
    manifest = bundles.read(versions[1]).manifest
    executable = manifest.executables["fp32"]
    calibration = executable.calibration
    calibration = msgspec.structs.replace(calibration, review=calibration.image.threshold)
    executables = {"fp32": msgspec.structs.replace(executable, calibration=calibration)}
    with serving(reload_ms=10):
        bundles.write_manifest(versions[1], msgspec.structs.replace(manifest, version="odd", executables=executables))
        place.publish(versions[1])
        wait_until(lambda: "stays with tiny@1: line line1: review: expected a score below" in caplog.text)
        bundles.write_manifest(versions[1], manifest)
        place.publish(versions[1])
        wait_until(lambda: judged(line) and judged(line)[-1] == "tiny@2 reject")


def replace_network(manifest):
    """A manifest that names another network than there is."""
    executable = manifest.executables["fp32"]
    file = msgspec.structs.replace(executable.network, sha256="0" * 64)
    return msgspec.structs.replace(
        manifest, version="broken", executables={"fp32": msgspec.structs.replace(executable, network=file)}
    )


def test_without_a_period_it_looks_only_when_it_is_told(
    serving, place, versions, line, wait_until: Callable[..., None]
):
    with serving(reload_ms=0) as reloader:
        place.publish(versions[1])
        count = len(judged(line))
        wait_until(lambda: len(judged(line)) > count + 20)
        assert set(judged(line)) == {"tiny@1 good"}
        reloader.look()
        wait_until(lambda: judged(line)[-1] == "tiny@2 reject")


def test_an_equal_bundle_keeps_the_model(place, tmp_path, make_config, line):
    config = msgspec.structs.replace(
        make_config(line),
        line=(Line("a", str(place.path)), Line("b", str(place.path))),
        runtime=Runtime(backend="onnx"),
    )
    (loaded,) = lines.load_all(config)
    assert loaded.lines == ("a", "b")
    assert not lines.replaced(loaded)
    (place.path / "bundle.json").touch()
    assert lines.replaced(loaded)
    again = lines.load_again(loaded, config)
    assert again.predictor is loaded.predictor
    assert again == replace(loaded, stamp=again.stamp)
    loaded.predictor.close()
