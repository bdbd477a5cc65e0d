"""What processes use while something is measured: CPU time and memory, children included."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping

import psutil

from engine.bench.report import Usage

_EVERY_S = 0.2
_MB = 1e6


class Meter:
    """Watches named processes between its start and `stop`."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._peak_bytes = dict.fromkeys(pids, 0)
        self._cpu_s = {name: _cpu_s(process) for name, process in self._processes.items()}
        self._started_s = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="usage", daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, Usage]:
        """CPU since the start, and the peak of resident memory."""
        seconds = time.monotonic() - self._started_s
        self._stopped.set()
        self._thread.join()
        cpu_s = {name: _cpu_s(process) - self._cpu_s[name] for name, process in self._processes.items()}
        return {name: Usage(100 * cpu_s[name] / seconds, cpu_s[name], self._peak_bytes[name] / _MB) for name in cpu_s}

    def _watch(self) -> None:
        while True:
            for name, process in self._processes.items():
                self._peak_bytes[name] = max(self._peak_bytes[name], _rss_bytes(process))
            if self._stopped.wait(_EVERY_S):
                return


def _family(process: psutil.Process) -> Iterator[psutil.Process]:
    try:
        yield process
        yield from process.children(recursive=True)
    except psutil.NoSuchProcess:
        return


def _cpu_s(process: psutil.Process) -> float:
    total = 0.0
    for member in _family(process):
        try:
            times = member.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _rss_bytes(process: psutil.Process) -> int:
    total = 0
    for member in _family(process):
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
