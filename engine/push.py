"""`engine push`: pictures from a folder, a video or a camera into a line's stream."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from engine.codec import DATA, MAX_ID_CHARS, META, encode_frame
from engine.config import Redis
from engine.contract import NAME_PATTERN
from engine.errors import DecodeError, UsageError
from engine.producer.buffer import Parcel
from engine.producer.encoding import encode
from engine.producer.journal import Journal
from engine.producer.schedule import Schedule, Thinner
from engine.producer.sender import Sender
from engine.producer.sources import Picture, Source, find_source
from engine.streams.keys import line_keys
from engine.streams.link import Link
from engine.streams.redis import read_password
from engine.types import Codec, Frame

log = logging.getLogger(__name__)

MAX_BACKLOG = 1000
_GRACE_S = 10.0
_PROGRESS_S = 0.2


@dataclass(frozen=True, slots=True)
class PushOptions:
    """What `engine push` does.

    `fps` 0 is as fast as the backlog allows (files) or as the camera gives (live); `codec` None sends JPEG and PNG
    files untouched; `frames` 0 is all. `max_backlog` is how many unread frames of the line the producer tolerates
    before it waits (0: any number): the default rides out several seconds without an engine at 200 frames/s, and keeps
    the server's memory bounded.
    """

    source: str
    line: str
    camera: str
    redis: Redis = field(default_factory=Redis)
    fps: float = 0.0
    loop: bool = False
    codec: Codec | None = None
    journal: Path | None = None
    frames: int = 0
    max_backlog: int = MAX_BACKLOG

    def __post_init__(self) -> None:
        for what, name in (("--line", self.line), ("--camera", self.camera), ("--prefix", self.redis.prefix)):
            if not NAME_PATTERN.fullmatch(name):
                raise UsageError(f"{what}: expected 1 to 64 of A-Z a-z 0-9 . _ -, got {name!r}")
        if self.fps < 0 or self.frames < 0 or self.max_backlog < 0:
            raise UsageError("--fps, --frames and --max-backlog: expected zero or more")


@dataclass(slots=True)
class PushReport:
    """What a producer did: frames are those that the server accepted.

    `unreadable` files were named in the log and left out; `thinned` frames of a live source came between the due times
    of `fps`; `late_ms` is the furthest that a frame was behind its schedule when it was handed over.
    """

    frames: int = 0
    payload_bytes: int = 0
    unreadable: int = 0
    thinned: int = 0
    late_ms: float = 0.0
    backlog_wait_s: float = 0.0
    interruptions: int = 0
    seconds: float = 0.0


def push(
    options: PushOptions,
    stop: threading.Event | None = None,
    on_progress: Callable[[PushReport], None] | None = None,
) -> PushReport:
    """Send a source's pictures until it ends, `frames` were sent or `stop` is set.

    Waits while the server is away or the backlog is at its limit, and loses nothing it has taken; after `stop` it waits
    ten seconds more at most. `on_progress` gets the running report a few times a second. Raises UsageError or DataError
    for a source that cannot be read, StreamError where the server refuses frames for good.
    """
    source = find_source(options.source)
    if options.loop and source.live:
        raise UsageError(f"--loop: {options.source} is a live source and never ends; leave --loop out")
    return _Push(options, source, stop or threading.Event(), on_progress).run()


class _Push:
    """One run of a producer: the reading side."""

    def __init__(
        self,
        options: PushOptions,
        source: Source,
        stop: threading.Event,
        on_progress: Callable[[PushReport], None] | None,
    ) -> None:
        self._options = options
        self._source = source
        self._stop = stop
        self._on_progress = on_progress
        self._report = PushReport()
        self._started = self._shown = time.monotonic()

    def run(self) -> PushReport:
        """See `push`."""
        options = self._options
        with ExitStack() as stack:
            journal = stack.enter_context(Journal(options.journal)) if options.journal else None
            link = stack.enter_context(closing(Link(options.redis, read_password(options.redis), "engine-push")))
            keys = line_keys(options.redis.prefix, options.line)
            sender = Sender(link, keys, options.max_backlog, journal)
            try:
                for parcel in islice(self._parcels(), options.frames or None):
                    if not sender.put(parcel, self._stop):
                        break
                    self._show(sender)
            except BaseException:
                self._stop.set()
                raise
            finally:
                sender.close(self._stop, _GRACE_S)
            self._update(sender)
        return self._report

    def _parcels(self) -> Iterator[Parcel]:
        """The source's pictures as stream entries, each given when it is due."""
        for picture, ts_ns in self._paced():
            try:
                parcel = parcel_of(picture, self._options, ts_ns)
            except DecodeError as error:
                log.warning("left out: %s", error)
                self._report.unreadable += 1
            else:
                yield parcel

    def _paced(self) -> Iterator[tuple[Picture, int]]:
        """Pictures with their capture time, ns since the epoch."""
        pictures = self._source.pictures(self._options.loop, self._stop)
        if not self._options.fps:
            return ((picture, time.time_ns()) for picture in pictures)
        schedule = Schedule(time.monotonic_ns(), self._options.fps)
        return self._thinned(pictures, schedule) if self._source.live else self._scheduled(pictures, schedule)

    def _scheduled(self, pictures: Iterator[Picture], schedule: Schedule) -> Iterator[tuple[Picture, int]]:
        for index, picture in enumerate(pictures):
            wait_s = schedule.wait_s(index, time.monotonic_ns())
            if wait_s and self._stop.wait(wait_s):
                return
            now_ns = time.monotonic_ns()
            late_ns = schedule.late_ns(index, now_ns)
            self._report.late_ms = max(self._report.late_ms, late_ns / 1e6)
            yield picture, time.time_ns() - late_ns

    def _thinned(self, pictures: Iterator[Picture], schedule: Schedule) -> Iterator[tuple[Picture, int]]:
        thinner = Thinner(schedule)
        for picture in pictures:
            if thinner.keep(time.monotonic_ns()):
                yield picture, time.time_ns()
            else:
                self._report.thinned += 1

    def _show(self, sender: Sender) -> None:
        if self._on_progress is not None and time.monotonic() - self._shown >= _PROGRESS_S:
            self._shown = time.monotonic()
            self._update(sender)
            self._on_progress(self._report)

    def _update(self, sender: Sender) -> None:
        report, sent = self._report, sender.sent
        report.frames, report.payload_bytes = sent.frames, sent.payload_bytes
        report.backlog_wait_s, report.interruptions = sent.waited_s, sent.interruptions
        report.seconds = time.monotonic() - self._started


def parcel_of(picture: Picture, options: PushOptions, ts_ns: int) -> Parcel:
    """A picture as a stream entry; raises DecodeError for a file that is no picture."""
    encoded = encode(picture, options.codec)
    name = None if picture.name is None else frame_id(picture.name)
    frame = Frame(
        camera=options.camera,
        ts_ns=ts_ns,
        codec=encoded.codec,
        data=encoded.data,
        id=name,
        shape=encoded.shape,
        pixel_format=encoded.pixel_format,
    )
    fields = encode_frame(frame)
    return Parcel(name or "", fields[META], fields[DATA])


def frame_id(name: str) -> str:
    """A picture's name as a frame id: valid UTF-8 on one line, and the last 128 characters of longer ones."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in text)[-MAX_ID_CHARS:]
