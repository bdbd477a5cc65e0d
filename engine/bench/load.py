"""The cameras of a benchmark: `python -m engine.bench.load URL PREFIX LINE PICTURES CAMERAS` is their process.

It sends pictures that were encoded beforehand, so that it costs what a camera gateway costs: packing and sending.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from engine.bench.worker import Document, Worker, serve_requests
from engine.codec import DATA, META, encode_frame
from engine.config import Redis
from engine.errors import EngineError
from engine.producer.buffer import Parcel
from engine.producer.schedule import Schedule
from engine.producer.sender import Sender
from engine.producer.sources import picture_files
from engine.streams.keys import LineKeys, line_keys
from engine.streams.link import Link
from engine.streams.redis import read_password
from engine.types import Frame

_S_IN_NS = 1_000_000_000
_GRACE_S = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where the frames go."""

    redis: Redis
    line: str

    @property
    def keys(self) -> LineKeys:
        """The line's keys."""
        return line_keys(self.redis.prefix, self.line)

    def link(self) -> Link:
        """A new way to the server; the caller closes it."""
        return Link(self.redis, read_password(self.redis), "engine-bench")


def load_worker(target: Target, folder: Path, cameras: int) -> Worker:
    """The cameras' process.

    Each request is {"seconds": s, "fps": f, "max_backlog": n}: f frames/s over all cameras whether or not they are
    consumed (0: as many as the backlog limit admits). The report is {"frames", "late_ms", "start_ns", "end_ns"}, times
    since the epoch.
    """
    arguments = [target.redis.url, target.redis.prefix, target.line, str(folder), str(cameras)]
    return Worker([sys.executable, "-m", "engine.bench.load", *arguments])


class Cameras:
    """Endless frames of several cameras in turn, each with its scheduled capture time."""

    def __init__(self, pictures: list[bytes], cameras: int) -> None:
        self._frames = cycle(pictures)
        self._names = cycle([f"cam{index}" for index in range(cameras)])
        self._count = 0

    def parcel(self, ts_ns: int) -> Parcel:
        """The next frame as a stream entry."""
        self._count += 1
        frame = Frame(next(self._names), ts_ns, "jpeg", next(self._frames), id=str(self._count))
        fields = encode_frame(frame)
        return Parcel(str(self._count), fields[META], fields[DATA])


def due_times(fps: float, seconds: float) -> Iterator[int]:
    """Capture times, ns since the epoch, each given when it has come; at `fps` 0 the time when it is asked for."""
    start_ns, epoch_ns = time.monotonic_ns(), time.time_ns()
    schedule = Schedule(start_ns, fps or 1.0)
    index = 0
    while (now_ns := time.monotonic_ns()) < start_ns + seconds * _S_IN_NS:
        if not fps:
            yield time.time_ns()
            continue
        time.sleep(schedule.wait_s(index, now_ns))
        yield epoch_ns + schedule.due_ns(index) - start_ns
        index += 1


def send(sender: Sender, source: Cameras, request: Document) -> Document:
    """Fulfil one request; raises StreamError where frames are left a minute after its end."""
    stop = threading.Event()
    alarm = threading.Timer(request["seconds"] + _GRACE_S, stop.set)
    alarm.daemon = True
    alarm.start()
    start_ns, late_ns = time.time_ns(), 0
    for ts_ns in due_times(request["fps"], request["seconds"]):
        late_ns = max(late_ns, time.time_ns() - ts_ns)
        sender.put(source.parcel(ts_ns), stop)
    end_ns = time.time_ns()
    sender.close(stop, 0)
    alarm.cancel()
    return {"frames": sender.sent.frames, "late_ms": late_ns / 1e6, "start_ns": start_ns, "end_ns": end_ns}


def main(arguments: list[str]) -> None:
    """The child's side."""
    url, prefix, line, folder, cameras = arguments
    target = Target(Redis(url=url, prefix=prefix), line)
    source = Cameras([file.read_bytes() for file in picture_files(Path(folder))], int(cameras))
    with closing(target.link()) as link:

        def work(request: Document) -> Document:
            return send(Sender(link, target.keys, int(request["max_backlog"])), source, request)

        serve_requests(work)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except EngineError as error:
        sys.exit(f"engine.bench.load: {error}")
