"""A bounded queue between the thread that reads a source and the one that talks to the server."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parcel:
    """A frame ready to be sent: the entry's two fields and the frame's id ("" for the entry's own)."""

    id: str
    meta: bytes
    data: bytes

    @property
    def size_bytes(self) -> int:
        """What it weighs on the wire."""
        return len(self.meta) + len(self.data)


class Buffer:
    """Blocks the writer while full, so that a source slows down rather than loses frames.

    Full is `max_frames` frames or `max_bytes` bytes, but one frame always fits.
    """

    def __init__(self, max_frames: int, max_bytes: int) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._parcels: deque[Parcel] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, parcel: Parcel, timeout_s: float) -> bool:
        """Add a frame; False where there was no room for it in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._has_room(parcel), timeout_s):
                return False
            self._parcels.append(parcel)
            self._bytes += parcel.size_bytes
            self._changed.notify_all()
            return True

    def take(self) -> list[Parcel]:
        """All that is queued, waiting for the first; empty only when closed and drained."""
        with self._changed:
            self._changed.wait_for(lambda: self._parcels or self._closed)
            batch = list(self._parcels)
            self._parcels.clear()
            self._bytes = 0
            self._changed.notify_all()
            return batch

    def close(self) -> None:
        """No more frames will be put; `take` ends when it has given the rest."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._parcels)

    def _has_room(self, parcel: Parcel) -> bool:
        if not self._parcels:
            return True
        return len(self._parcels) < self._max_frames and self._bytes + parcel.size_bytes <= self._max_bytes
