"""Consumer processes that tests start, kill, stop and continue."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from engine.config import Config

CONSUMER = Path(__file__).parent / "consumer.py"


@dataclass
class Fleet:
    """Processes of `consumer.py`; each logs to a file of its own."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, config: Config, batch_s: float = 0.0) -> subprocess.Popen[bytes]:
        with self.log_of(len(self.processes)).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(CONSUMER), msgspec.json.encode(config).decode(), str(batch_s)],
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        self.processes.append(process)
        return process

    def log_of(self, index: int) -> Path:
        return self.folder / f"consumer-{index}.log"

    def log(self) -> str:
        return "".join(self.log_of(i).read_text() for i in range(len(self.processes)))

    def running(self) -> list[subprocess.Popen[bytes]]:
        return [process for process in self.processes if process.poll() is None]

    def end(self) -> None:
        for process in self.running():
            process.send_signal(signal.SIGCONT)
            process.kill()
        for process in self.processes:
            process.wait(10)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.end()


@pytest.fixture
def finish(wait_until: Callable[..., None]) -> Callable[..., None]:
    """Wait until every entry has ended somewhere, then see that each did exactly once."""

    def check(line, entries: list[str], timeout_s: float = 60) -> None:
        wait_until(lambda: line.left() == 0 and not line.pending(), timeout_s)
        assert line.ends() == sorted(entries)

    return check
