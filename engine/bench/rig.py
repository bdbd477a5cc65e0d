"""The whole stream on one machine: server, `engine serve`, cameras and a reader, all real."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from engine.bench.load import Target, load_worker
from engine.bench.reader import ResultReader, Seen
from engine.bench.report import OpenLoopRun, Setup, Usage, latency, quantiles, rate
from engine.bench.usage import Meter
from engine.config import Redis
from engine.errors import EngineError
from engine.streams.embedded import EmbeddedServer

_EMBEDDED = "embedded"
_LOCAL = ("unix://", "redis://127.0.0.1", "redis://localhost")
_READY = re.compile(r"\bready\b")
_READY_S = 180.0
_STOP_S = 20.0
_POLL_S = 0.05
_STALL_S = 30.0
_RAMP = 0.2  # of a saturated segment is left out at its start
_WARMUP = 0.1  # of an open-loop run is left out at its start
_BACKLOG_BATCHES = 16
_S_IN_NS = 1_000_000_000


class ServeError(EngineError):
    """The engine under test did not start, or died."""


@dataclass(frozen=True, slots=True)
class Saturation:
    """A segment in which frames were always waiting: results per second by the server's clock."""

    fps: float
    frames: int
    usage: dict[str, Usage]


class Rig:
    """Server, engine, cameras and reader, up and ready inside a `with` block.

    `url` is a server's, or `embedded` for one of its own; either way the line's name is new, and its keys are removed.
    """

    def __init__(self, bundle: Path, setup: Setup, url: str, cameras: int, pictures: Path, scratch: Path) -> None:
        self._bundle = bundle
        self._setup = setup
        self._url = url
        self._cameras = cameras
        self._pictures = pictures
        self._scratch = scratch
        self._stack = ExitStack()
        self._pids: dict[str, int] = {}

    def __enter__(self) -> Rig:
        with ExitStack() as stack:
            self._target = self._open_server(stack)
            self._engine = stack.enter_context(EngineProcess(self._target, self._bundle, self._setup, self._scratch))
            self._load = stack.enter_context(load_worker(self._target, self._pictures, self._cameras))
            self._reader = stack.enter_context(ResultReader(self._target))
            self._pids |= {"engine": self._engine.pid, "producer": self._load.pid}
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self._stack.close()

    def saturate(self, seconds: float) -> Saturation:
        """Push as fast as the engine consumes."""
        self._reader.begin()
        meter = Meter(self._pids)
        sent = self._load.measure(seconds=seconds, fps=0, max_backlog=_BACKLOG_BATCHES * self._setup.batch)
        seen = self._results(sent["frames"])
        usage = meter.stop()
        published_s = sorted(result.published_ns / _S_IN_NS for result in seen)
        start_s = published_s[0] + _RAMP * (published_s[-1] - published_s[0])
        return Saturation(rate(published_s, start_s, published_s[-1]), len(seen), usage)

    def open_loop(self, fps: float, seconds: float) -> OpenLoopRun:
        """Push `fps` frames/s over all cameras whether or not the engine keeps up."""
        self._reader.begin()
        meter = Meter(self._pids)
        sent = self._load.measure(seconds=seconds, fps=fps, max_backlog=0)
        seen = self._results(sent["frames"])
        usage = meter.stop()
        begin_ns = sent["start_ns"] + _WARMUP * seconds * _S_IN_NS
        warm = [result for result in seen if result.ts_ns >= begin_ns]
        totals = [result.timing_ms["total"] for result in warm]
        return OpenLoopRun(
            cameras=self._cameras,
            offered_fps=fps,
            throughput_fps=rate(
                [r.published_ns / _S_IN_NS for r in seen], begin_ns / _S_IN_NS, sent["end_ns"] / _S_IN_NS
            ),
            frames=sent["frames"],
            results=len(seen),
            seconds=seconds,
            anomalous=sum(result.anomalous for result in seen) / len(seen),
            latency_ms=latency(totals),
            reader_latency_ms=latency([(result.received_ns - result.ts_ns) / 1e6 for result in warm]),
            stages_ms={stage: latency([result.timing_ms[stage] for result in warm]) for stage in warm[0].timing_ms},
            max_backlog=self._reader.max_backlog,
            late_ms=sent["late_ms"],
            usage=usage,
            quantiles_ms=quantiles(totals),
        )

    def _results(self, frames: int) -> list[Seen]:
        seen = self._reader.wait_for(frames, _STALL_S)
        if len(seen) < frames:
            raise ServeError(
                f"{len(seen)} of {frames} results after {_STALL_S:g} s; engine's log:\n{self._engine.tail()}"
            )
        return seen

    def _open_server(self, stack: ExitStack) -> Target:
        url = self._url
        if url == _EMBEDDED:
            server = stack.enter_context(EmbeddedServer())
            url = server.url
        target = Target(Redis(url=url), f"bench-{uuid.uuid4().hex[:8]}")
        if url.startswith(_LOCAL):
            self._pids["server"] = _server_pid(target)
        stack.callback(_remove_keys, target)
        return target


class EngineProcess:
    """`engine serve` on one line, ready inside a `with` block; its log goes to a file in `scratch`."""

    def __init__(self, target: Target, bundle: Path, setup: Setup, scratch: Path) -> None:
        self._log = scratch / "serve.log"
        config = scratch / "engine.toml"
        config.write_text(_toml(target, bundle, setup))
        command = [sys.executable, "-m", "engine", "serve", "--config", str(config)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def tail(self) -> str:
        """The end of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-10:])

    def __enter__(self) -> EngineProcess:
        deadline = time.monotonic() + _READY_S
        while not _READY.search(self._log.read_text(errors="replace")):
            if self._process.poll() is not None:
                raise ServeError(f"`engine serve` ended with status {self._process.returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                self._stop()
                raise ServeError(f"`engine serve` was not ready after {_READY_S:g} s:\n{self.tail()}")
            time.sleep(_POLL_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _toml(target: Target, bundle: Path, setup: Setup) -> str:
    """An engine.toml; JSON strings are TOML strings."""
    return f"""
[redis]
url = {json.dumps(target.redis.url)}
prefix = {json.dumps(target.redis.prefix)}

[[line]]
name = {json.dumps(target.line)}
bundle = {json.dumps(str(bundle.resolve()))}

[batch]
max_size = {setup.batch}

[runtime]
backend = {json.dumps(setup.backend)}
precision = {json.dumps(setup.precision)}
threads = {setup.threads}
cascade = {json.dumps(setup.cascade)}
"""


def _remove_keys(target: Target) -> None:
    keys = target.keys
    with closing(target.link()) as link, link.translated():
        link.open()
        link.client(keys.frames).delete(keys.frames, keys.results, keys.dead)


def _server_pid(target: Target) -> int:
    with closing(target.link()) as link, link.translated():
        link.open()
        return int(link.client(target.keys.frames).info("server")["process_id"])
