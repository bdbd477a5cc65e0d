"""**Exactly one result or dead letter for every frame**, with consumers killed, paused, stopped and poisoned."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import pytest

from engine.config import Config

MakeConfig = Callable[..., Config]
WaitUntil = Callable[..., None]


def test_consumers_killed_mid_batch(line, fleet, make_config: MakeConfig, wait_until: WaitUntil, finish) -> None:
    config = make_config(line, claim_idle_ms=400, max_deliveries=20, max_size=4)
    chance = random.Random(3)
    entries = []
    for _ in range(3):
        fleet.start(config, batch_s=0.02)
    for _ in range(5):
        entries += [line.push() for _ in range(60)]
        wait_until(lambda: line.pending())
        time.sleep(chance.uniform(0.02, 0.3))
        chance.choice(fleet.running()).kill()
        fleet.start(config, batch_s=0.02)
    finish(line, entries)
    assert line.dead() == []
    assert sum(process.poll() == -signal.SIGKILL for process in fleet.processes) == 5


def test_a_consumer_paused_past_its_claim(line, fleet, make_config: MakeConfig, wait_until: WaitUntil, finish) -> None:
    config = make_config(line, claim_idle_ms=300)
    paused = fleet.start(config, batch_s=0.1)
    entries = [line.push() for _ in range(60)]
    wait_until(lambda: len(line.pending()) >= 20)
    paused.send_signal(signal.SIGSTOP)
    other = fleet.start(config)
    wait_until(lambda: line.left() == 0)
    paused.send_signal(signal.SIGCONT)
    entries += [line.push() for _ in range(20)]
    finish(line, entries)
    time.sleep(0.5)  # what the paused one still holds must not come out a second time
    assert line.ends() == sorted(entries)
    assert [process.poll() for process in (paused, other)] == [None, None]


def test_racing_consumers(line, fleet, make_config: MakeConfig, wait_until: WaitUntil, finish) -> None:
    """A claim time shorter than a batch: consumers take frames from one another all the time."""
    config = make_config(line, claim_idle_ms=30, max_deliveries=1000, max_size=2)
    for _ in range(3):
        fleet.start(config, batch_s=0.05)
    entries = [line.push() for _ in range(120)]
    finish(line, entries)
    assert line.dead() == []


def test_frames_that_kill_the_process_take_no_other_with_them(
    line, fleet, make_config: MakeConfig, wait_until: WaitUntil, finish
) -> None:
    config = make_config(line, claim_idle_ms=250, max_deliveries=2, max_size=4)
    levels = [66 if i in (11, 12, 40) else 20 for i in range(60)]
    entries = [line.push(level) for level in levels]

    def alive_until_done() -> bool:
        if not fleet.running():
            fleet.start(config)
        return line.left() == 0

    wait_until(alive_until_done, 100)
    finish(line, entries)
    poison = {entry for entry, level in zip(entries, levels, strict=True) if level == 66}
    assert {dead.frame for dead in line.dead()} == poison
    assert {(dead.letter.type, dead.letter.deliveries) for dead in line.dead()} == {("max_deliveries", 2)}
    crashes = sum(process.poll() == 9 for process in fleet.processes)
    assert crashes <= 2 * len(poison)
    assert crashes >= 4


def test_sigterm_finishes_hands_back_and_exits_0(
    line, fleet, make_config: MakeConfig, wait_until: WaitUntil, finish
) -> None:
    """With a claim time of a minute, only what was handed back can be done in seconds."""
    config = make_config(line, claim_idle_ms=60_000, max_size=2)
    entries = [line.push() for _ in range(200)]  # of which at most 64 are held at a time
    first = fleet.start(config, batch_s=0.15)
    wait_until(lambda: line.results())
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 0
    done = len(line.results())
    assert 0 < done < 100
    assert set(line.pending().values()) <= {0}
    fleet.start(config)
    finish(line, entries, 20)
    assert line.dead() == []
    assert "Traceback" not in fleet.log()


def test_many_lines_and_consumers(line, fleet, make_config: MakeConfig, finish) -> None:
    lines = [line.beside(f"line{i}") for i in range(8)]
    config = make_config(*lines, claim_idle_ms=500)
    entries = {each.name: [each.push(20 + i) for i in range(15)] for each in lines}
    for _ in range(2):
        fleet.start(config)
    for each in lines:
        finish(each, entries[each.name])
        assert len(each.results()) == 15


def test_the_log_says_ready_once_and_nothing_alarming(line, fleet, make_config: MakeConfig, wait_until) -> None:
    process = fleet.start(make_config(line))
    wait_until(lambda: "ready" in fleet.log())
    line.push()
    wait_until(lambda: line.results())
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert fleet.log().count("ready") == 1
    assert not any(word in fleet.log() for word in ("ERROR", "WARNING", "Traceback"))


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGKILL])
def test_an_idle_consumer_stops_at_once_and_leaves_the_group(
    line, fleet, make_config: MakeConfig, wait_until: WaitUntil, second: signal.Signals
) -> None:
    process = fleet.start(make_config(line))
    wait_until(lambda: "ready" in fleet.log())
    started_s = time.monotonic()
    process.send_signal(second)
    assert process.wait(10) in (0, -signal.SIGKILL)
    assert time.monotonic() - started_s < 3
    left = line.client.xinfo_consumers(line.keys.frames, "engine")
    assert len(left) == (second == signal.SIGKILL)
