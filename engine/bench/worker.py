"""A process that does one kind of work for a number of seconds whenever it is told to, and reports.

Measurements run in processes of their own, because two inference runtimes in one process fight over threads, and they
stay alive between segments, so that two of them can be measured in turn on a noisy machine. The conversation is one
JSON document a line: the child says {"ready": true}, then answers every request with one report.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from engine.errors import EngineError

Document = dict[str, Any]


class WorkerError(EngineError):
    """A measuring process that died."""


class Worker:
    """The parent's end; the child works in `folder`, or where the parent does."""

    def __init__(self, command: Sequence[str], folder: Path | None = None) -> None:
        self._command = list(command)
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder, bufsize=1
        )
        try:
            self._read()
        except WorkerError:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def start(self, **request: float | str) -> None:
        """Ask for work without waiting for it."""
        stdin = _pipe(self._process.stdin)
        try:
            stdin.write(json.dumps(request) + "\n")
        except BrokenPipeError:
            raise WorkerError(self._epitaph()) from None

    def finish(self) -> Document:
        """The report of the work last asked for."""
        return self._read()

    def measure(self, **request: float | str) -> Document:
        """Ask for work and wait for its report."""
        self.start(**request)
        return self.finish()

    def close(self) -> None:
        """End the child."""
        _pipe(self._process.stdin).close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _pipe(self._process.stdout).close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self.close()

    def _read(self) -> Document:
        line = _pipe(self._process.stdout).readline()
        if not line:
            raise WorkerError(self._epitaph())
        document: Document = json.loads(line)
        return document

    def _epitaph(self) -> str:
        return f"{' '.join(self._command[:4])}: ended with status {self._process.wait()}; its reason is printed above"


def serve_requests(work: Callable[[Document], Document]) -> None:
    """The child's end: say that it is ready, then answer requests until stdin ends."""
    _say({"ready": True})
    for line in sys.stdin:
        _say(work(json.loads(line)))


def _say(document: Document) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None  # all three were asked for in Popen
    return pipe
