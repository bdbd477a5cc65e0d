"""The thread that publishes outcomes, many in one round trip, and holds on to those that the server refuses."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence

from engine.errors import AwayError, StreamError
from engine.pipeline.health import Health
from engine.pipeline.job import Job
from engine.pipeline.ledger import Ledger
from engine.streams.base import OutcomeSink

log = logging.getLogger(__name__)

_AT_ONCE = 64
_COALESCE_S = 0.002
_AWAY_S = 0.2
_REFUSED_S = 1.0


class Publisher:
    """Ends jobs. A refused one is parked and tried again each second, and its line is not read in the meantime.

    `more_soon` says that others of the same batch are about to come, which makes them worth a moment's waiting. `over`
    gets every job that the ledger has let go of, and whether this process ended it.
    """

    def __init__(
        self,
        sink: OutcomeSink,
        ledger: Ledger,
        health: Health,
        consumer: str,
        *,
        more_soon: Callable[[], bool],
        over: Callable[[Job, bool], None],
    ) -> None:
        self._sink = sink
        self._ledger = ledger
        self._health = health
        self._consumer = consumer
        self._more_soon = more_soon
        self._over = over
        self._waiting: deque[Job] = deque()
        self._parked: list[Job] = []
        self._refused: dict[str, StreamError] = {}  # lines that have parked jobs, and why
        self._retry_s = 0.0  # monotonic time at which the parked ones are tried again
        self._stopped = False
        self._changed = threading.Condition()

    @property
    def refused_lines(self) -> Collection[str]:
        """Lines that are not to be read, because what was read could not be published."""
        return tuple(self._refused)

    def put(self, jobs: Sequence[Job]) -> None:
        """Take jobs whose outcome stands."""
        with self._changed:
            self._waiting.extend(jobs)
            self._changed.notify()

    def stop(self) -> None:
        """Let the thread end after the round trip it is in."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def loop(self) -> None:
        """Publish until `stop`."""
        while jobs := self._next():
            self._publish(jobs)

    def _next(self) -> list[Job]:
        """The next jobs to publish, parked ones included when they are due; none at the end."""
        with self._changed:
            while not self._stopped:
                wait_s = self._retry_s - time.monotonic() if self._parked else None
                if wait_s is not None and wait_s <= 0:
                    jobs, self._parked = self._parked, []
                    return jobs
                if self._waiting:
                    self._changed.wait_for(self._worth_publishing, _COALESCE_S)
                    return [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
                self._changed.wait(wait_s)
            return []

    def _worth_publishing(self) -> bool:
        return len(self._waiting) >= _AT_ONCE or not self._more_soon() or self._stopped

    def _publish(self, jobs: Sequence[Job]) -> None:
        endings = self._sink.publish([job.outcome(self._consumer) for job in jobs])
        over = [(job, ending) for job, ending in zip(jobs, endings, strict=True) if isinstance(ending, bool)]
        failed = [(job, ending) for job, ending in zip(jobs, endings, strict=True) if isinstance(ending, StreamError)]
        self._ledger.end(job for job, _ in over)
        for job, ended in over:
            self._over(job, ended)
        refused = [(job, error) for job, error in failed if not isinstance(error, AwayError)]
        self._park([job for job, _ in refused], {job.watch.line: error for job, error in refused})
        self._try_again([(job, error) for job, error in failed if isinstance(error, AwayError)])

    def _park(self, jobs: Sequence[Job], errors: dict[str, StreamError]) -> None:
        if jobs:
            self._parked += jobs
            self._retry_s = time.monotonic() + _REFUSED_S
            self._ledger.park(jobs)
        if self._refused or jobs:
            lines = {job.watch.line for job in self._parked}
            self._refused = {line: error for line, error in (self._refused | errors).items() if line in lines}
            self._health.refused("publishing", self._refused)

    def _try_again(self, failed: Sequence[tuple[Job, AwayError]]) -> None:
        if not failed:
            self._health.works("publishing")
            return
        self._health.fails("publishing", failed[0][1])
        with self._changed:
            self._waiting.extendleft(job for job, _ in reversed(failed))
            self._changed.wait_for(lambda: self._stopped, _AWAY_S)
