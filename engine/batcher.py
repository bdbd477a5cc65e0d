"""When a batch is full enough. Pure: items go in with the time, batches come out by the time.

A batch holds items of one group (of lines that share a model). It is ready when it is full, when its first item has
waited `max_wait_ms`, or when the caller says that nothing more can come. A suspect is a batch of its own.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Batch(Generic[T]):
    """`since_ms` is when its first item came; `room` how many more it takes."""

    since_ms: float
    room: int
    items: list[T] = field(default_factory=list)


class Batcher(Generic[T]):
    """Collects items into batches, oldest first. Times are milliseconds of one monotonic clock."""

    def __init__(self, max_size: int, max_wait_ms: float) -> None:
        self._max_size = max_size
        self._max_wait_ms = max_wait_ms
        self._batches: list[_Batch[T]] = []  # in the order of their first items
        self._open: dict[Hashable, _Batch[T]] = {}  # the one of each group that still has room

    def add(self, item: T, group: Hashable, now_ms: float, *, alone: bool = False) -> None:
        """Add an item to its group's batch; with `alone` no other item will share its batch."""
        if alone:
            self._batches.append(_Batch(now_ms, 0, [item]))
            return
        batch = self._open.get(group)
        if batch is None:
            batch = self._open[group] = _Batch(now_ms, self._max_size)
            self._batches.append(batch)
        batch.items.append(item)
        batch.room -= 1
        if not batch.room:
            del self._open[group]

    def take(self, now_ms: float, *, flush: bool = False) -> list[T] | None:
        """The oldest batch that is ready, or None; with `flush` every batch is ready."""
        for i, batch in enumerate(self._batches):
            if flush or not batch.room or now_ms >= batch.since_ms + self._max_wait_ms:
                del self._batches[i]
                self._open = {group: other for group, other in self._open.items() if other is not batch}
                return batch.items
        return None

    def due_ms(self) -> float | None:
        """When `take` will have something without anything being added; None where it holds nothing."""
        if not self._batches:
            return None
        if any(not batch.room for batch in self._batches):
            return self._batches[0].since_ms
        return self._batches[0].since_ms + self._max_wait_ms

    def __len__(self) -> int:
        return sum(len(batch.items) for batch in self._batches)
