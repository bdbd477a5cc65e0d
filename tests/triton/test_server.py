"""A server of its own: started, given new versions under load, killed, ended without a trace."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
import tritonclient.grpc as grpc

from engine.cli import main
from engine.errors import BackendError, UsageError
from engine.triton import installation
from engine.triton.repository import Repository
from engine.triton.server import Server


@pytest.fixture(scope="module")
def own(bundle, export, tmp_path_factory) -> Iterator[Path]:
    """A repository with a server that the tests below, in their order, put through its life; its path has spaces."""
    path = tmp_path_factory.mktemp("own") / "a répository"
    export(bundle, path)
    yield path
    Server(Repository(path)).down()


@pytest.fixture
def run(capsys):
    """A command's exit status and the document that it prints."""

    def run(*arguments):
        capsys.readouterr()
        status = main(["triton", *map(str, arguments), "--json"])
        return status, json.loads(capsys.readouterr().out or "null")

    return run


def left(running) -> list:
    """Processes of a server's session and shared memory of its name."""
    session = [
        p.pid for p in psutil.process_iter() if p.status() != psutil.STATUS_ZOMBIE and _session(p) == running.pid
    ]
    return [*session, *Path("/dev/shm").glob(f"{running.shm_prefix}*")]


def _session(process) -> int:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return 0


@contextmanager
def load(address: str, images: np.ndarray, threads: int = 3) -> Iterator[list[tuple[str, float]]]:
    """Clients that ask `detector` without a pause; yields (version, pred_score) of each answer. Nothing may fail."""
    answers: list[tuple[str, float]] = []
    failures: list[Exception] = []
    done = threading.Event()

    def ask() -> None:
        with grpc.InferenceServerClient(address) as client:
            tensor = grpc.InferInput("IMAGE", [1, 64, 64, 3], "UINT8")
            tensor.set_data_from_numpy(images[:1])
            while not done.is_set():
                try:
                    result = client.infer("detector", [tensor])
                except Exception as error:
                    failures.append(error)
                    return
                answers.append((result.get_response().model_version, float(result.as_numpy("pred_score")[0, 0])))

    workers = [threading.Thread(target=ask) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield answers
    finally:
        done.set()
        for worker in workers:
            worker.join()
    assert not failures, failures


def test_two_at_once_start_one_server(own):
    found = []
    threads = [threading.Thread(target=lambda: found.append(Server(Repository(own)).up())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]


def test_up_returns_when_it_is_ready_and_a_second_time_at_once(run, own):
    status, document = run("up", own)
    assert status == 0
    assert document["ready"]
    assert {"grpc", "http", "metrics", "pid", "log"} <= set(document)
    assert Path(document["log"]).is_file()
    assert document["versions"] == {"1": "tiny@1"}
    assert run("up", own) == (0, document)
    assert run("status", own) == (0, document)


def test_a_new_version_and_the_way_back_lose_nothing_and_mix_nothing(
    run, own, other, export, images, wait_until: Callable[..., None]
):
    with load(Server(Repository(own)).running().grpc, images) as answers:
        wait_until(lambda: len(answers) > 20)
        assert export(other, own)["loaded"]
        for _ in range(2):
            count = len(answers)
            wait_until(lambda count=count: len(answers) > count + 20)
        status, document = run("rollback", own)
        assert (status, document) == (0, {"version": 1, "model": "tiny@1", "loaded": True})
        count = len(answers)
        wait_until(lambda: len(answers) > count + 20)
    versions = [version for version, _ in answers]
    assert set(answers) == {("1", answers[0][1]), ("2", answers[versions.index("2")][1])}
    assert answers[0][1] != answers[versions.index("2")][1]
    assert versions[0] == versions[-1] == "1"


def test_a_version_that_cannot_be_loaded_changes_nothing(own, other, export, images, tmp_path):
    """Its Gaussian is another's file."""
    folder = tmp_path / "broken"
    folder.mkdir()
    for file in other.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes() if file.suffix != ".safetensors" else b"nothing")
    manifest = msgspec.structs.replace(other.manifest, version="3")
    before = sorted(path for path in own.rglob("*"))
    with pytest.raises(BackendError, match="not a readable model"):
        export(type(other)(folder, manifest), own)
    assert sorted(path for path in own.rglob("*")) == before
    with grpc.InferenceServerClient(Server(Repository(own)).running().grpc) as client:
        tensor = grpc.InferInput("IMAGE", [1, 64, 64, 3], "UINT8")
        tensor.set_data_from_numpy(images[:1])
        assert client.infer("detector", [tensor]).get_response().model_version == "1"


def test_a_port_that_is_taken_is_named(other, export, tmp_path):
    export(other, tmp_path / "second")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match=f"port {taken.getsockname()[1]} of 127.0.0.1 is taken"):
            Server(Repository(tmp_path / "second")).up((0, taken.getsockname()[1], 0))


def test_a_killed_server_is_noticed_and_leaves_nothing_either(run, own, wait_until: Callable[..., None]):
    running = Server(Repository(own)).running()
    assert left(running)
    os.kill(running.pid, signal.SIGKILL)
    wait_until(lambda: not running.alive)
    status, document = run("status", own)
    assert (status, document["ready"], document["pid"]) == (1, False, None)
    assert run("up", own)[0] == 0
    assert not left(running)


def test_down_leaves_nothing(run, own):
    running = Server(Repository(own)).running()
    assert run("down", own) == (0, {"repository": str(own), "ended": True})
    assert not left(running)
    assert run("status", own)[0] == 1
    assert run("down", own) == (0, {"repository": str(own), "ended": False})


def test_two_that_start_at_the_same_time_each_serve_their_own(own, other, export, tmp_path):
    """Both find the usual ports free; one loads its models longer and finds them taken."""
    export(other, tmp_path / "other")
    servers = [Server(Repository(own)), Server(Repository(tmp_path / "other"))]
    try:
        with ThreadPoolExecutor(2) as pool:
            running = list(pool.map(Server.up, servers))
        assert len({address for each in running for address in (each.http, each.grpc, each.metrics)}) == 6
        for each, wanted in zip(running, ("tiny@1", "tiny@2"), strict=True):
            with grpc.InferenceServerClient(each.grpc) as client:
                config = client.get_model_config("detector", as_json=True)["config"]
            assert config["parameters"]["bundle"]["string_value"] == wanted
    finally:
        for server in servers:
            server.down()


def test_a_server_that_does_not_start_says_why_and_is_gone(own):
    for path in own.glob("fyd-*-decision/1/model.py"):
        path.write_text("raise RuntimeError('broken on purpose')")
    with pytest.raises(BackendError, match="broken on purpose"):
        Server(Repository(own)).up()
    assert Server(Repository(own)).running() is None


def test_the_pypi_server_runs_with_this_python(tmp_path):
    """What is started: this Python's stub beside the backend, this Python first on PATH."""
    found = installation.find(tmp_path, tmp_path, "name")
    if found.backends is None:
        pytest.skip(f"another server comes first here: {found.what}")
    assert (found.backends / "python" / "triton_python_backend_stub").is_file()
    assert (found.backends / "python" / "libtriton_python.so").is_file()
    wheel, python = found.environment["LD_LIBRARY_PATH"].split(os.pathsep)[:2]
    assert list(Path(wheel).glob("libtritonserver*"))
    assert list(Path(python).glob("libpython3*"))
    assert found.environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
