"""Blocking reads of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from engine.types import Delivery

Reader = Callable[[Sequence[str], int, int], list[Delivery]]  # lines of one slot, count, block_ms


class ShardReads:
    """Blocking reads of a cluster, one thread a line: lines lie in different slots, which no single read may cover.

    A read that has found nothing yet goes on in the background; its frames come with a later call.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._reads: dict[str, Future[list[Delivery]]] = {}

    def read(self, reader: Reader, lines: Sequence[str], count: int, block_ms: int) -> list[Delivery]:
        """What any of the lines has within `block_ms`, or all of them now for 0; raises the first error."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=max(64, len(lines)), thread_name_prefix="shard")
        for line in lines:
            if line not in self._reads:
                self._reads[line] = self._pool.submit(reader, [line], count, block_ms)
        if block_ms:
            wait(self._reads.values(), timeout=block_ms / 1e3, return_when=FIRST_COMPLETED)
        else:
            wait(self._reads.values())
        ready = [line for line, future in self._reads.items() if future.done()]
        return [delivery for line in ready for delivery in self._reads.pop(line).result()]

    def close(self) -> list[Delivery]:
        """End the threads; returns what they have read and nobody has taken."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        whole = [future for future in self._reads.values() if future.exception() is None]
        return [delivery for future in whole for delivery in future.result()]
