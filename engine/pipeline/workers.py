"""The pool that does what needs no model: decoding before the inference, judging and encoding after it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from engine.pipeline.job import Job

Step = Callable[[Job], None]
Steps = Callable[[Sequence[Job]], None]
_AT_ONCE = 4  # finished frames that one thread takes: few enough to share a batch, enough to spare wake-ups


class Workers:
    """Threads that take the oldest finished inference first, else the oldest picture to decode.

    Both steps spend their time in libraries that release the interpreter lock. `decoded` is called after a decode, when
    the frame no longer counts as `decoding`. `loop` is run by each thread.
    """

    def __init__(self, *, decode: Step, decoded: Step, finish: Steps) -> None:
        self._decode = decode
        self._decoded = decoded
        self._finish = finish
        self._undecoded: deque[Job] = deque()
        self._unfinished: deque[Job] = deque()
        self._decoding = 0
        self._stopped = False
        self._changed = threading.Condition()

    @property
    def decoding(self) -> int:
        """Pictures that are still to come to the inference."""
        return self._decoding

    @property
    def finishing(self) -> bool:
        """Whether frames whose raw output is there wait to be finished."""
        return bool(self._unfinished)

    def decode(self, jobs: Sequence[Job]) -> None:
        """Queue frames to be decoded."""
        with self._changed:
            self._undecoded.extend(jobs)
            self._decoding += len(jobs)
            self._changed.notify(len(jobs))

    def finish(self, jobs: Sequence[Job]) -> None:
        """Queue frames whose raw output is there."""
        with self._changed:
            self._unfinished.extend(jobs)
            self._changed.notify(len(jobs))

    def unbegun(self) -> list[Job]:
        """Take out what no thread has begun to decode."""
        with self._changed:
            jobs = list(self._undecoded)
            self._undecoded.clear()
            self._decoding -= len(jobs)
            return jobs

    def stop(self) -> None:
        """Let every thread end after the step it is in."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def loop(self) -> None:
        """Work until `stop`."""
        while True:
            with self._changed:
                while not (self._unfinished or self._undecoded or self._stopped):
                    self._changed.wait()
                if self._stopped:
                    return
                finished = [self._unfinished.popleft() for _ in range(min(_AT_ONCE, len(self._unfinished)))]
                job = self._undecoded.popleft() if not finished else None
            if job is None:
                self._finish(finished)
                continue
            self._decode(job)
            with self._changed:
                self._decoding -= 1
            self._decoded(job)
