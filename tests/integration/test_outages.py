"""Servers that are away, come back, lose things, refuse things or are full; the pipeline runs in this process."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgpack
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import config as engine_config
from engine.config import Config
from engine.errors import BackendError
from engine.metrics import Metrics
from engine.pipeline import Pipeline, Watch
from engine.serving.base import ConstantPredictor
from engine.streams.embedded import EmbeddedServer, free_port
from engine.streams.keys import GROUP
from engine.streams.redis import connect

OLD_META = msgpack.packb({"v": 1, "camera": "c", "ts_ns": 1, "codec": "jpeg"})
MakeConfig = Callable[..., Config]
MakeWatch = Callable[..., Watch]
WaitUntil = Callable[..., None]


@contextmanager
def running(config: Config, make_watch: MakeWatch) -> Iterator[Pipeline]:
    with connect(config) as streams:
        watches = [make_watch(line.name) for line in config.line]
        pipeline = Pipeline(streams.source, streams.sink, watches, config, Metrics())
        thread = threading.Thread(target=pipeline.run)
        thread.start()
        try:
            yield pipeline
        finally:
            pipeline.stop()
            thread.join(30)
            assert not thread.is_alive()


@contextmanager
def flowing(line, errors: tuple[type[Exception], ...] = ()) -> Iterator[list[str]]:
    """A camera that sends a frame every few ms, and keeps trying; yields the entries it has added."""
    entries: list[str] = []
    done = threading.Event()

    def send() -> None:
        while not done.wait(0.005):
            try:
                entries.append(line.push(20))
            except errors:
                time.sleep(0.05)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield entries
    finally:
        done.set()
        thread.join()


def drained(line) -> bool:
    return line.left() == 0 and not line.pending()


def test_a_server_that_restarts_loses_nothing(
    tmp_path: Path, make_line, make_config: MakeConfig, make_watch: MakeWatch, wait_until: WaitUntil, caplog
) -> None:
    server = EmbeddedServer(directory=tmp_path, settings={"appendonly": "yes", "appendfsync": "always"})
    server.start()
    line = make_line(server)
    away = (redis.ConnectionError, redis.TimeoutError)
    with running(make_config(line, claim_idle_ms=400), make_watch) as pipeline, flowing(line, away) as entries:
        wait_until(lambda: len(entries) > 30)
        for _ in range(2):
            server.kill()
            wait_until(lambda: not pipeline.ready)
            server.start()
            wait_until(lambda: pipeline.ready)
            count = len(entries)
            wait_until(lambda count=count: len(entries) > count + 20)
    with running(make_config(line, claim_idle_ms=400), make_watch):
        wait_until(lambda: drained(line))
    ends = line.ends()
    assert len(ends) == len(set(ends))
    assert set(entries) <= set(ends)  # an entry whose reply was lost is unknown to the camera, and ends too
    assert line.dead() == []
    assert sum("waiting for the server" in record.message for record in caplog.records) == 2
    server.stop()


def test_a_server_that_is_away_at_the_start_is_waited_for(
    make_line, make_config: MakeConfig, make_watch: MakeWatch, wait_until: WaitUntil
) -> None:
    port = free_port()
    server = EmbeddedServer(port=port)
    line = make_line(server)
    with running(make_config(line), make_watch) as pipeline:
        time.sleep(0.3)
        assert not pipeline.ready
        server.start()
        entry = line.push()
        wait_until(lambda: line.ends() == [entry])
        assert pipeline.ready
    server.stop()


def test_stopping_while_the_server_is_away_does_not_hang(
    make_line, make_config: MakeConfig, make_watch: MakeWatch, wait_until: WaitUntil
) -> None:
    server = EmbeddedServer()
    server.start()
    with running(make_config(make_line(server)), make_watch) as pipeline:
        wait_until(lambda: pipeline.ready)
        server.stop()
        wait_until(lambda: not pipeline.ready)
        started_s = time.monotonic()
    assert time.monotonic() - started_s < 5


@pytest.mark.parametrize("keep", [False, True])
def test_a_group_that_is_destroyed_while_frames_flow(
    line, make_config: MakeConfig, make_watch: MakeWatch, wait_until: WaitUntil, keep: bool
) -> None:
    config = make_config(line, claim_idle_ms=300, keep_frames=keep)
    with running(config, make_watch), flowing(line) as entries:
        for target in (40, 80, 120):
            wait_until(lambda target=target: len(entries) > target)
            line.client.xgroup_destroy(line.keys.frames, GROUP)
    with running(config, make_watch):
        wait_until(lambda: set(line.ends()) == set(entries) and not line.pending())
    assert line.ends() == sorted(entries)
    assert line.dead() == []
    assert line.left() == (len(entries) if keep else 0)


def test_a_refused_publish_keeps_frames_pending_and_the_engine_not_ready(
    line, make_config: MakeConfig, make_watch: MakeWatch, wait_until: WaitUntil
) -> None:
    port = free_port()
    other = line.beside("line2")
    config = make_config(line, other)
    config = type(config)(**{**_parts(config), "metrics": engine_config.Metrics(port=port)})
    line.client.set(line.keys.results, "not a stream")
    with running(config, make_watch):
        wait_until(lambda: status(port, "/readyz") == 200)
        entries = line.push_at_once(10)  # a refused line is not read any further
        wait_until(lambda: status(port, "/readyz") == 503)
        assert status(port, "/healthz") == 200
        others = [other.push() for _ in range(10)]
        wait_until(lambda: other.ends() == sorted(others))
        assert sorted(line.pending()) == entries
        line.client.delete(line.keys.results)
        wait_until(lambda: line.ends() == sorted(entries))
        wait_until(lambda: status(port, "/readyz") == 200)
    assert line.dead() == []


WRONG = {
    "wrong type": (
        lambda line: line.client.set(line.keys.frames, "not a stream"),
        lambda line: line.client.delete(line.keys.frames),
    ),
    "forbidden": (
        lambda line: line.client.execute_command("ACL", "SETUSER", "default", "resetkeys", "~*:{line2}:*"),
        lambda line: line.client.execute_command("ACL", "SETUSER", "default", "allkeys"),
    ),
}


@pytest.mark.parametrize("when", ["from the start", "later"])
@pytest.mark.parametrize("what", WRONG)
def test_a_line_that_cannot_be_read_is_told_once_and_does_not_stop_the_others(
    make_line, make_config: MakeConfig, make_watch: MakeWatch, wait_until: WaitUntil, caplog, what: str, when: str
) -> None:
    spoil, mend = WRONG[what]
    with EmbeddedServer() as server:
        line = make_line(server)
        other = line.beside("line2")
        if when == "from the start":
            spoil(line)
        with caplog.at_level("INFO"), running(make_config(line, other), make_watch) as pipeline:
            wait_until(lambda: "ready" in caplog.text)
            if when == "later":
                wait_until(lambda: pipeline.ready)
                spoil(line)
            wait_until(lambda: not pipeline.ready)
            others = [other.push() for _ in range(30)]
            wait_until(lambda: other.ends() == sorted(others))
            time.sleep(1.2)  # past a second try of the refused line
            assert not pipeline.ready
            mend(line)
            entry = line.push()
            wait_until(lambda: line.ends() == [entry] and pipeline.ready)
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert "reading line1" in errors[0]
    assert line.keys.frames in errors[0]
    assert sum("working again (reading line1)" in record.message for record in caplog.records) == 1


def _parts(config: Config) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__struct_fields__}


def status(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except urllib.error.URLError:
        return 0


def test_a_full_server_is_worked_empty(
    make_line, make_config: MakeConfig, make_watch: MakeWatch, wait_until: WaitUntil
) -> None:
    with EmbeddedServer(maxmemory_bytes=6 << 20) as small:
        line = make_line(small)
        full = redis.exceptions.OutOfMemoryError
        pushed = []
        with pytest.raises(full):
            while True:
                pushed.append(line.push(20, tags={"filler": "x" * 3000}))
        with running(make_config(line), make_watch):
            wait_until(lambda: drained(line))
        assert line.ends() == sorted(pushed)


def test_every_kind_of_dead_letter(line, make_config: MakeConfig, make_watch: MakeWatch, wait_until, run_burst) -> None:
    class Moody(ConstantPredictor):
        def predict(self, images):
            if (images[:, 0, 0, 0] == 67).any():
                raise BackendError("no")
            return super().predict(images)

    line.client.xgroup_create(line.keys.frames, GROUP, "0", mkstream=True)
    kinds = {line.push(): "trimmed", line.push(): "max_deliveries"}
    trimmed, exhausted = kinds
    line.client.xreadgroup(GROUP, "gone", {line.keys.frames: ">"})
    line.client.xclaim(line.keys.frames, GROUP, "gone", 0, [exhausted], retrycount=5, idle=99_000)
    line.client.xclaim(line.keys.frames, GROUP, "gone", 0, [trimmed], retrycount=1, idle=99_000)
    line.client.xdel(line.keys.frames, trimmed)
    kinds |= {
        line.push_fields({"meta": b"\xc1", "data": b""}): "contract",
        line.push_fields({"other": b""}): "contract",
        line.push(data=b"no picture"): "decode",
        line.push(codec="raw", shape=(8, 8, 1), pixel_format="Mono8", data=bytes(64)): "too_small",
        line.push(codec="raw", shape=(99_999, 99_999, 1), pixel_format="Mono8", data=b""): "too_large",
        line.push(67): "inference",
    }
    good = line.push()
    run_burst(make_config(line), Moody())
    assert {dead.frame: dead.letter.type for dead in line.dead()} == kinds
    assert [result.frame for result in line.results()] == [good]
    buried = {dead.letter.type: dead for dead in line.dead()}
    assert (buried["trimmed"].meta, buried["trimmed"].data) == (b"", b"")
    assert buried["decode"].data == b"no picture"
    assert buried["max_deliveries"].letter.deliveries == 5
    for dead in buried.values():
        assert (dead.line, dead.letter.model) == ("line1", "test@1")
        assert dead.letter.message
        assert dead.letter.ts_ns > 0


def test_old_frames_expire_by_the_servers_clock(line, make_config: MakeConfig, run_burst) -> None:
    old = line.client.xadd(line.keys.frames, {"meta": OLD_META, "data": b""}, id="1000-1").decode()
    new = line.push()
    run_burst(make_config(line, max_age_ms=60_000))
    results = {result.frame: result for result in line.results()}
    assert (results[old].status, results[old].pred_score, results[old].decision) == ("expired", None, None)
    assert results[new].status == "ok"


def test_frames_in_the_stream_of_a_line_beyond_its_length_are_counted(line, make_config: MakeConfig, run_burst) -> None:
    for _ in range(30):
        line.push()
    metrics = run_burst(make_config(line, frames_maxlen=10))
    assert 'engine_trimmed_frames_total{line="line1"} 20.0' in metrics.text().decode()
    assert len(line.results()) == 10


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.lists(st.tuples(st.binary(max_size=120), st.binary(max_size=60)), min_size=1, max_size=12))
def test_whatever_bytes_are_sent_each_entry_ends_once(line, make_config: MakeConfig, run_burst, entries) -> None:
    ids = [line.push_fields({"meta": meta, "data": data}) for meta, data in entries]
    ids.append(line.push())
    run_burst(make_config(line))
    assert set(ids) <= set(line.ends())
    assert len(line.ends()) == len(set(line.ends()))
    assert drained(line)
