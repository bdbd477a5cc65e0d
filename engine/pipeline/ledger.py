"""What this process holds: every frame from its delivery to its end, and how many more it may take.

The one bound on memory: nothing is read while the ledger is full, so no queue between two stages needs its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from engine.pipeline.job import Job

_LOW_WATER = 0.6  # of the bounds; reading goes on below it, so that reads are large
_DECAY = 0.98
_READ_BYTES = 1 << 30  # that one read may bring at the worst, when only small frames have been seen for long


class Ledger:
    """Jobs by line and entry, bounded by count and by bytes; one job always fits. `largest_bytes` is the largest frame
    that is allowed, to be expected before any has been seen.

    Parked jobs (their result stands, but the server refuses it) are held on, and do not count: a line with parked
    jobs is not read, so they are no more than one ledger's worth a line.
    """

    def __init__(self, max_frames: int, max_bytes: int, largest_bytes: int) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._jobs: dict[tuple[str, str], Job] = {}
        self._running: dict[tuple[str, str], int] = {}  # charge in bytes
        self._bytes = 0
        self._max_read = _READ_BYTES // largest_bytes
        self._typical_bytes = float(largest_bytes)  # the largest recent frame, from which the room is reckoned
        self._changed = threading.Condition()

    def admit(self, jobs: Iterable[Job]) -> list[Job]:
        """Take deliveries in; returns those that were not held yet, and notes the others as delivered again."""
        admitted = []
        with self._changed:
            for job in jobs:
                held = self._jobs.get(job.key)
                if held is None:
                    self._jobs[job.key] = job
                    self._charge(job)
                    admitted.append(job)
                else:
                    held.again = job.delivery
        return admitted

    def charge_again(self, job: Job) -> None:
        """Charge what a job holds by now: more between a cascade's steps, less once its result stands."""
        with self._changed:
            if job.key in self._running:
                self._bytes += job.charge_bytes - self._running[job.key]
                self._running[job.key] = job.charge_bytes

    def end(self, jobs: Iterable[Job]) -> None:
        """Let go of jobs that have ended here or elsewhere."""
        with self._changed:
            for job in jobs:
                del self._jobs[job.key]
                self._bytes -= self._running.pop(job.key, 0)
            self._changed.notify_all()

    def park(self, jobs: Iterable[Job]) -> None:
        """Hold jobs on whose result the server refuses."""
        with self._changed:
            for job in jobs:
                self._bytes -= self._running.pop(job.key, 0)
            self._changed.notify_all()

    def room(self) -> int:
        """How many more frames may be read now, by count and by the typical frame's bytes."""
        with self._changed:
            return self._room()

    def wait_for_room(self, timeout_s: float) -> int:
        """Wait until a good part is free; the room then, 0 at the timeout."""
        with self._changed:
            return self._room() if self._changed.wait_for(self._below_low_water, timeout_s) else 0

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing but parked jobs is held; False at the timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout_s)

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until nothing is held; False at the timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs, timeout_s)

    def held(self) -> list[Job]:
        """Every job that is held, parked ones too."""
        with self._changed:
            return list(self._jobs.values())

    def load(self) -> tuple[int, int]:
        """Jobs held and bytes charged."""
        with self._changed:
            return len(self._jobs), self._bytes

    def _charge(self, job: Job) -> None:
        charge = job.charge_bytes
        self._running[job.key] = charge
        self._bytes += charge
        self._typical_bytes = max(charge, self._typical_bytes * _DECAY)

    def _below_low_water(self) -> bool:
        if not self._running:
            return True
        return len(self._running) <= _LOW_WATER * self._max_frames and self._bytes <= _LOW_WATER * self._max_bytes

    def _room(self) -> int:
        by_count = self._max_frames - len(self._running)
        by_bytes = int((self._max_bytes - self._bytes) / self._typical_bytes)
        return max(0 if self._running else 1, min(by_count, by_bytes, self._max_read))
