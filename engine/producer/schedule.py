"""When frames are due: an open-loop schedule, so that a slow receiver shows as latency and not as fewer frames."""

from __future__ import annotations

from dataclasses import dataclass

_S_IN_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Schedule:
    """Frame i is due at `start_ns` + i / `fps`, whatever happened to the frames before it.

    Times are nanoseconds of one monotonic clock, always arguments.
    """

    start_ns: int
    fps: float

    def due_ns(self, index: int) -> int:
        """When a frame is due."""
        return self.start_ns + round(index * _S_IN_NS / self.fps)

    def wait_s(self, index: int, now_ns: int) -> float:
        """Seconds left until a frame is due; 0 where it is late."""
        return max(0, self.due_ns(index) - now_ns) / _S_IN_NS

    def late_ns(self, index: int, now_ns: int) -> int:
        """How far behind its due time a frame is; 0 where it is early."""
        return max(0, now_ns - self.due_ns(index))

    def index_after(self, now_ns: int) -> int:
        """The first frame that is due later than `now_ns`."""
        passed_ns = now_ns - self.start_ns
        index = max(0, int(passed_ns * self.fps / _S_IN_NS) - 1)
        while self.due_ns(index) <= now_ns:
            index += 1
        return index


@dataclass(slots=True)
class Thinner:
    """Keeps of a live camera's frames the first one at or after each due time of a lower rate."""

    schedule: Schedule
    _next: int = 0

    def keep(self, now_ns: int) -> bool:
        """Whether a frame that arrived at `now_ns` is to be sent."""
        if now_ns < self.schedule.due_ns(self._next):
            return False
        self._next = self.schedule.index_after(now_ns)
        return True
