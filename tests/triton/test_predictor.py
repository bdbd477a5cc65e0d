"""`engine.serving.triton` against a real server: the in-process numbers, through shared memory and through restarts."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from engine import bundle as bundles
from engine.config import Line, Runtime, Triton
from engine.errors import BackendAwayError, BackendError, UsageError
from engine.metrics import Metrics
from engine.pipeline import Pipeline, Watch, lines
from engine.pipeline.reload import Reloader
from engine.published import Place
from engine.serving.select import open_local, open_predictor
from engine.serving.triton import TritonPredictor
from engine.sheet import Sheet
from engine.streams.embedded import free_port
from engine.streams.redis import connect
from engine.triton.repository import Repository
from engine.triton.server import Server

NOWHERE = "127.0.0.1:9"


@pytest.fixture(scope="module")
def local(bundle):
    return open_local(bundle, "onnx", "fp32", threads=1)


@pytest.fixture
def make(bundle) -> Iterator[Callable[..., TritonPredictor]]:
    made = []

    def make(url, of=bundle, batch_size=8, **keys):
        made.append(TritonPredictor(of, "fp32", Triton(url=url, **keys), batch_size))
        return made[-1]

    yield make
    for predictor in made:
        predictor.close()


def known_memory(client) -> list[str]:
    """The shared memory that the server holds."""
    return list(client.get_system_shared_memory_status().regions)


def forget_memory(client) -> None:
    """Take all shared memory from the server, as a restart does; what a request has just used is refused a while."""
    end = time.monotonic() + 10
    while known_memory(client) and time.monotonic() < end:
        with suppress(InferenceServerException):
            client.unregister_system_shared_memory()
    assert known_memory(client) == []


@contextmanager
def hanging(running) -> Iterator[None]:
    """Within, the server answers nobody."""
    os.kill(running.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(running.pid, signal.SIGCONT)


@pytest.mark.parametrize("shared_memory", ["auto", "system", "off"])
@pytest.mark.parametrize("n", [1, 8, 19])
def test_scores_and_maps_are_the_in_process_ones(running, make, local, n, shared_memory):
    images = np.random.default_rng(n).integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)
    raw, expected = make(running.grpc, shared_memory=shared_memory).predict(images), local.predict(images)
    np.testing.assert_allclose(raw.scores, expected.scores, rtol=1e-3)
    np.testing.assert_allclose(raw.maps, expected.maps, rtol=1e-3)
    assert raw.scores.dtype == np.float64


def test_requests_in_flight_do_not_disturb_each_other(running, make, local):
    predictor, worst = make(running.grpc), []

    def ask(seed: int) -> None:
        images = np.random.default_rng(seed).integers(0, 256, (1 + seed, 64, 64, 3), dtype=np.uint8)
        expected = local.predict(images).maps
        worst.append(max(np.abs(predictor.predict(images).maps / expected - 1).max() for _ in range(10)))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(worst) == 4
    assert max(worst) < 1e-3


def test_shared_memory_has_no_name_that_a_killed_process_could_leave(running, make, images):
    predictor = make(running.grpc)
    predictor.predict(images)
    assert not list(Path("/dev/shm").glob(f"engine-{os.getpid()}-*"))


def test_a_server_that_has_forgotten_the_memory_gets_it_again(running, make, client, local, images):
    predictor = make(running.grpc)
    predictor.predict(images)
    forget_memory(client)
    np.testing.assert_allclose(predictor.predict(images).scores, local.predict(images).scores, rtol=1e-3)


def test_a_server_that_was_too_slow_is_left_no_memory(running, make, client, images):
    forget_memory(client)
    predictor = make(running.grpc, timeout_ms=2000)
    predictor.predict(images)
    with hanging(running), pytest.raises(BackendAwayError, match="DEADLINE_EXCEEDED"):
        predictor.predict(images)
    predictor.predict(images)
    predictor.close()
    assert known_memory(client) == []


def test_a_server_that_hangs_is_away_until_it_answers_again(running, make, local, images):
    predictor = make(running.grpc, timeout_ms=2000)
    predictor.predict(images)
    with hanging(running), pytest.raises(BackendAwayError, match="DEADLINE_EXCEEDED"):
        predictor.predict(images)
    np.testing.assert_allclose(predictor.predict(images).scores, local.predict(images).scores, rtol=1e-3)


def test_results_are_not_overwritten_by_the_next_request(running, make, images):
    predictor = make(running.grpc)
    first = predictor.predict(images[:1])
    kept = first.maps.copy()
    predictor.predict(255 - images[:1])
    np.testing.assert_array_equal(first.maps, kept)


def test_a_bundle_that_is_not_published_is_waited_for_and_named(running, make, other, images):
    with pytest.raises(BackendAwayError, match=r"does not serve tiny@2 in fp32 .*engine export"):
        make(running.grpc, of=other).predict(images)


def test_nobody_there_is_away_too(make, images):
    with pytest.raises(BackendAwayError, match="UNAVAILABLE"):
        make(NOWHERE).predict(images)


def test_pictures_of_another_size_are_an_error_of_theirs(running, make):
    with pytest.raises(BackendError, match=r"expected pictures of \(64, 64\)") as caught:
        make(running.grpc).predict(np.zeros((1, 32, 32, 3), np.uint8))
    assert not isinstance(caught.value, BackendAwayError)


def test_memory_of_a_gpu_is_refused_where_there_is_no_library_for_it(make):
    if importlib.util.find_spec("cuda") is not None:
        pytest.skip("cuda-python is installed here")
    with pytest.raises(UsageError, match=r"pip install 'tritonclient\[cuda\]'"):
        make(NOWHERE, shared_memory="cuda")


def test_the_fallback_takes_over_where_it_is_configured_and_only_there(bundle, local, images, caplog):
    runtime = Runtime(backend="triton", threads=1)
    with pytest.raises(BackendAwayError):
        open_predictor(bundle, runtime, 8, Triton(url=NOWHERE)).predict(images)
    predictor = open_predictor(bundle, runtime, 8, Triton(url=NOWHERE, fallback="onnx"))
    for _ in range(3):
        np.testing.assert_array_equal(predictor.predict(images).scores, local.predict(images).scores)
    assert sum("takes over" in record.message for record in caplog.records) == 1
    assert predictor.backend == "triton, else onnx"
    predictor.close()


def test_frames_survive_a_server_that_is_killed_and_comes_back(
    bundle, export, pictures, line, make_config, tmp_path, wait_until: Callable[..., None]
):
    """Frames flow all the time; each ends once, none as a dead letter, and with the in-process score."""
    export(bundle, tmp_path / "repository")
    server, ports = Server(Repository(tmp_path / "repository")), (free_port(), free_port(), free_port())
    running = server.up(ports)
    predictor = TritonPredictor(bundle, "fp32", Triton(url=running.grpc, timeout_ms=2000), 8)
    watch = Watch("line1", "tiny@1", "fyd", predictor, bundle.executable("fp32").calibration, Sheet(((64, 64),)))
    frame = cv2.imencode(".png", cv2.cvtColor(pictures[0], cv2.COLOR_RGB2BGR))[1].tobytes()
    entries: list[str] = []
    done = threading.Event()

    def camera() -> None:
        while not done.wait(0.01):
            entries.append(line.push(data=frame))

    with connect(make_config(line)) as streams:
        pipeline = Pipeline(streams.source, streams.sink, [watch], make_config(line), Metrics())
        threads = [threading.Thread(target=pipeline.run), threading.Thread(target=camera)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: len(line.results()) > 20)
            os.kill(running.pid, signal.SIGKILL)
            wait_until(lambda: not pipeline.ready)
            server.up(ports)
            wait_until(lambda: pipeline.ready)
            count = len(entries)
            wait_until(lambda: len(entries) > count + 20)
            done.set()
            threads[1].join()
            wait_until(lambda: line.left() == 0 and not line.pending())
        finally:
            done.set()
            pipeline.stop()
            for thread in threads:
                thread.join(30)
            predictor.close()
            server.down()
    assert line.ends() == sorted(entries)
    assert not line.dead()
    expected = open_local(bundle, "onnx", "fp32", threads=1).predict(pictures[:1]).scores[0]
    assert [result.raw_score for result in line.results()] == pytest.approx([expected] * len(entries), rel=1e-3)


def test_a_published_version_is_swapped_in_when_the_server_serves_it(
    bundle, export, pictures, line, make_config, tmp_path, caplog, wait_until: Callable[..., None]
):
    """Export into the repository, publish to the place, in the wrong order; and both back."""
    versions = [bundle.path, tmp_path / "second"]
    shutil.copytree(bundle.path, versions[1])
    bundles.write_manifest(versions[1], msgspec.structs.replace(bundle.manifest, version="2"))
    repository, place = Repository(tmp_path / "repository"), Place(tmp_path / "live")
    export(bundle, repository.path)
    place.publish(versions[0])
    running = Server(repository).up((free_port(), free_port(), free_port()))
    config = msgspec.structs.replace(
        make_config(line),
        line=(Line("line1", str(place.path)),),
        runtime=Runtime(backend="triton", reload_ms=20),
        triton=Triton(url=running.grpc),
    )
    frame = cv2.imencode(".png", pictures[0])[1].tobytes()
    entries: list[str] = []

    def judged_by(model: str) -> None:
        entries.append(line.push(data=frame))
        wait_until(lambda: len(line.results()) == len(entries))
        assert line.results()[-1].model == model

    with connect(config) as streams:
        loaded = lines.load_all(config)
        pipeline = Pipeline(streams.source, streams.sink, loaded[0].watches(config), config, Metrics())
        thread = threading.Thread(target=pipeline.run)
        with Reloader(loaded, config, pipeline):
            thread.start()
            try:
                judged_by("tiny@1")
                place.publish(versions[1])
                wait_until(lambda: "stays with tiny@1: Triton" in caplog.text)
                judged_by("tiny@1")
                export(bundles.read(versions[1]), repository.path)
                wait_until(lambda: "tiny@2 takes the place of tiny@1" in caplog.text)
                judged_by("tiny@2")
                place.roll_back()
                wait_until(lambda: "tiny@1 takes the place of tiny@2" in caplog.text)
                judged_by("tiny@1")
            finally:
                pipeline.stop()
                thread.join(30)
                Server(repository).down()
    assert not line.dead()
