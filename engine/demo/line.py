"""A line on this machine for the demo: embedded server, `engine serve`, cameras and a reader."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import redis

from engine.config import Redis
from engine.demo.cells import Cameras
from engine.errors import EngineError
from engine.push import PushOptions, push
from engine.streams.keys import line_keys
from engine.streams.reader import LineReader, Published

LINE = "cells"
_BLOCK_MS = 100
_READY_S = 60
_STOP_S = 30
_PATIENCE_S = 60  # without a new result the demo gives up


@contextmanager
def serving(bundle: Path, url: str, log: Path) -> Iterator[None]:
    """`engine serve` in a process of its own from its `ready` line until the block ends.

    Raises EngineError with the end of its log where it does not come up or does not stop cleanly.
    """
    command = [sys.executable, "-m", "engine", "serve", "--line", f"{LINE}={bundle}", "--redis", url]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        ready = threading.Event()
        follower = threading.Thread(target=_follow, args=(process, stderr, ready), daemon=True)
        follower.start()
        try:
            if not ready.wait(_READY_S) or process.poll() is not None:
                raise EngineError(f"engine serve did not begin to read: {_tail(log)}")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(_STOP_S)
            follower.join()
    if status:
        raise EngineError(f"engine serve ended with status {status}: {_tail(log)}")


def stream(
    cameras: Cameras,
    client: redis.Redis,
    reader: LineReader,
    url: str,
    fps: float,
    on_published: Callable[[list[Published]], None],
) -> list[Published]:
    """Push every frame of every camera, `fps` a second each (0: as fast as they go), and read what becomes of them.

    Raises EngineError where results stop coming before every frame has ended.
    """
    stop = threading.Event()
    found: list[Published] = []
    silent_s = 0.0
    with ThreadPoolExecutor(len(cameras.folders)) as pool:
        pushes = [pool.submit(push, _options(name, path, url, fps), stop) for name, path in cameras.folders.items()]
        try:
            while len(found) < cameras.frames:
                new = reader.read(_BLOCK_MS)
                silent_s = 0.0 if new else silent_s + _BLOCK_MS / 1e3
                if silent_s > _PATIENCE_S:
                    raise EngineError(f"{cameras.frames - len(found)} frames have had no result for {_PATIENCE_S} s")
                found += new
                on_published(new)
        finally:
            stop.set()
    for done in pushes:
        done.result()
    return found


def reader_of(client: redis.Redis) -> LineReader:
    """A reader of the demo's line."""
    return LineReader(client, line_keys(Redis().prefix, LINE))


def _options(camera: str, folder: Path, url: str, fps: float) -> PushOptions:
    return PushOptions(source=str(folder), line=LINE, camera=camera, redis=Redis(url=url), fps=fps)


def _follow(process: subprocess.Popen[str], log: object, ready: threading.Event) -> None:
    """Copy the server's log and notice its `ready` line."""
    assert process.stderr is not None
    for line in process.stderr:
        print(line, end="", file=log, flush=True)  # type: ignore[call-overload]
        if "ready" in line:
            ready.set()
    ready.set()  # it has ended; whoever waits looks why


def _tail(log: Path) -> str:
    return log.read_text().strip()[-400:] or "it said nothing"
