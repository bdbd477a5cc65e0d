"""Cluster mode against a real cluster: one node that owns every slot, so every rule about slots holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest

from engine import config as settings
from engine.audit import audit
from engine.config import Config
from engine.metrics import Metrics
from engine.pipeline import Pipeline, Watch
from engine.replay import Chosen, replay
from engine.streams.embedded import EmbeddedServer, free_port
from engine.streams.link import Link
from engine.streams.redis import connect


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedServer]:
    bus = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    with EmbeddedServer(port=free_port(), settings=bus) as server, server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
            pass
        yield server


@pytest.fixture
def lines(cluster: EmbeddedServer, make_line: Callable[..., object]) -> list:
    first = make_line(cluster, "line0")
    return [first.beside(f"line{i}") for i in range(5)]


def slots(lines: list) -> set[int]:
    return {line.client.execute_command("CLUSTER", "KEYSLOT", line.keys.frames) for line in lines}


def clustered(config: Config, mode: str) -> Config:
    return msgspec.structs.replace(config, redis=msgspec.structs.replace(config.redis, cluster=mode))


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_lines_in_different_slots_are_all_worked(lines: list, make_config, run_burst, mode: str) -> None:
    assert len(slots(lines)) == len(lines)
    entries = {line.name: [line.push(20 + i) for i in range(12)] for line in lines}
    lines[0].push_fields({"meta": b"\xc1", "data": b""})
    run_burst(clustered(make_config(*lines), mode))
    for line in lines:
        assert sorted(result.frame for result in line.results()) == sorted(entries[line.name])
        assert (line.left(), line.pending()) == (0, {})
    assert [dead.letter.type for dead in lines[0].dead()] == ["contract"]


def test_lines_in_different_slots_are_audited_and_replayed(lines: list, make_config, run_burst, tiny) -> None:
    entries = {line.name: [line.push() for _ in range(3)] for line in lines}
    config = clustered(make_config(*lines, keep_frames=True), "auto")
    run_burst(config)
    link = Link(config.redis, None, "test")
    for line in lines:
        found = audit(link, line.keys, None)
        assert (found.how, found.frames, found.results, found.holds) == ("kept frames", 3, 3, True)
    link.close()
    again = msgspec.structs.replace(
        config, line=(settings.Line(name="again", bundle=str(tiny.path)),), runtime=settings.Runtime(backend="onnx")
    )
    rows = replay(again, lines[1].name, Chosen(kept=True)).rows
    assert [row.frame for row in rows] == entries[lines[1].name]
    assert all(row.after for row in rows)


def test_frames_that_come_later_are_read_by_blocking(lines: list, make_config, make_watch, wait_until) -> None:
    config = make_config(*lines)
    with connect(config) as streams:
        watches: list[Watch] = [make_watch(line.name) for line in lines]
        pipeline = Pipeline(streams.source, streams.sink, watches, config, Metrics())
        thread = threading.Thread(target=pipeline.run)
        thread.start()
        wait_until(lambda: pipeline.ready)
        entries = {line.name: [line.push() for _ in range(6)] for line in lines}
        for line in lines:
            wait_until(lambda line=line: line.ends() == entries[line.name])
        pipeline.stop()
        thread.join(10)
        assert not thread.is_alive()
    for line in lines:
        assert line.client.xinfo_consumers(line.keys.frames, "engine") == []


def test_frames_read_in_the_background_are_handed_back_at_the_end(lines: list, make_config) -> None:
    config = make_config(*lines, claim_idle_ms=60_000)
    with connect(config) as streams:
        assert streams.source.read(10, 0) == []
        blocked = threading.Timer(0.1, lines[0].push)
        blocked.start()
        assert streams.source.read(10, 2000)[0].line == "line0"
        entry = lines[3].push()  # its read still blocks in the background
    with connect(config) as streams:
        assert streams.source.read(10, 0) == []
        claim = streams.source.claim(10, alone=False)
        assert [(delivery.entry, delivery.deliveries) for delivery in claim.deliveries] == [(entry, 1)]


def test_a_killed_consumers_frames_are_claimed(lines: list, fleet, finish, make_config, wait_until) -> None:
    config = make_config(*lines, claim_idle_ms=400)
    first = fleet.start(config, batch_s=0.1)
    entries = {line.name: [line.push() for _ in range(8)] for line in lines}
    wait_until(lambda: any(line.results() for line in lines))
    first.kill()
    fleet.start(config)
    for line in lines:
        finish(line, entries[line.name])
        assert line.dead() == []


def test_a_refused_line_does_not_stop_the_others(lines: list, make_config, make_watch, wait_until) -> None:
    lines[1].client.set(lines[1].keys.frames, "not a stream")
    config = make_config(*lines)
    with connect(config) as streams:
        watches: list[Watch] = [make_watch(line.name) for line in lines]
        pipeline = Pipeline(streams.source, streams.sink, watches, config, Metrics())
        thread = threading.Thread(target=pipeline.run)
        thread.start()
        for line in lines[:1] + lines[2:]:
            entry = line.push()
            wait_until(lambda line=line, entry=entry: line.ends() == [entry])
        assert not pipeline.ready
        lines[1].client.delete(lines[1].keys.frames)
        entry = lines[1].push()
        wait_until(lambda: lines[1].ends() == [entry] and pipeline.ready)
        pipeline.stop()
        thread.join(10)
        assert not thread.is_alive()


def test_kept_frames_end_once_though_the_groups_are_lost(lines: list, make_config, run_burst) -> None:
    config = make_config(*lines, keep_frames=True)
    entries = {line.name: [line.push() for _ in range(5)] for line in lines}
    for _ in range(2):
        run_burst(config)
        for line in lines:
            assert (line.ends(), line.left()) == (sorted(entries[line.name]), 5)
            line.client.xgroup_destroy(line.keys.frames, "engine")
