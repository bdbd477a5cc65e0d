"""Where pictures come from: a folder, a file, a video, a network camera or a webcam."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import cv2
import numpy as np

from engine.errors import DataError, UsageError
from engine.types import U8

log = logging.getLogger(__name__)

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp"})
_TIMEOUT_MS = 10_000
_RETRY_S = (0.5, 1, 2, 5, 10)

Kind = Literal["pictures", "video", "url", "webcam"]


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a source: a `file` still to be read, or an `image` (H, W, 3) BGR; never both.

    `name` tells it from the source's other pictures; a live camera's have none.
    """

    name: str | None
    file: Path | None = None
    image: U8 | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A source that was looked at but not opened yet; `location` is a path, a URL or a webcam's index."""

    kind: Kind
    location: str

    @property
    def live(self) -> bool:
        """Whether it goes at its own pace and without end."""
        return self.kind in ("url", "webcam")

    def pictures(self, loop: bool, stop: threading.Event) -> Iterator[Picture]:
        """Its pictures, in order; for ever with `loop` and from live sources, until `stop` is set.

        Raises DataError where there is nothing to read.
        """
        if self.live:
            yield from _live(self, stop)
            return
        round_ = 0
        while not stop.is_set():
            mark = f"#{round_}" if round_ else ""
            yield from self._once(mark)
            if not loop:
                return
            round_ += 1

    def _once(self, mark: str) -> Iterator[Picture]:
        return _files(Path(self.location), mark) if self.kind == "pictures" else _video(Path(self.location), mark)


def find_source(text: str) -> Source:
    """What SOURCE on the command line means; raises UsageError where it is nothing that can be read."""
    scheme = urlsplit(text).scheme
    if "://" in text:
        if scheme not in _SCHEMES:
            raise UsageError(f"{redacted(text)}: scheme {scheme!r} is not one of {', '.join(sorted(_SCHEMES))}")
        return Source("url", text)
    path = Path(text)
    if path.is_dir() or (path.is_file() and path.suffix.lower() in PICTURES):
        return Source("pictures", text)
    if path.is_char_device() or (text.isdecimal() and not path.exists()):
        return Source("webcam", text)
    if path.is_file():
        return Source("video", text)
    raise UsageError(f"{text}: no such folder or file; give a folder of pictures, a video, a URL or a webcam's number")


def redacted(url: str) -> str:
    """A URL without its user and password, for logs."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def picture_files(folder: Path) -> list[Path]:
    """The pictures below a folder, links followed, in name order; or the one that `folder` itself is."""
    if folder.is_file():
        return [folder]
    files = (Path(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names)
    return sorted(file for file in files if file.suffix.lower() in PICTURES)


def _files(folder: Path, mark: str) -> Iterator[Picture]:
    files = picture_files(folder)
    if not files:
        raise DataError(f"{folder}: no pictures here; expected files named {', '.join(sorted(PICTURES))}")
    base = folder if folder.is_dir() else folder.parent
    for file in files:
        yield Picture(name=file.relative_to(base).as_posix() + mark, file=file)


def _video(file: Path, mark: str) -> Iterator[Picture]:
    capture = _open(Source("video", os.fspath(file)))
    if capture is None:
        raise DataError(f"{file}: OpenCV cannot read it as a video; expected a picture or a video file")
    try:
        for index, image in enumerate(_frames(capture)):
            yield Picture(name=f"{file.name}:{index}{mark}", image=image)
    finally:
        capture.release()


def _live(source: Source, stop: threading.Event) -> Iterator[Picture]:
    """Frames of a camera, opened again whenever it goes away; a webcam must be there to begin with."""
    where = redacted(source.location)
    failures = 0
    seen = source.kind == "url"  # what is at the other end of a network may still be starting
    while not stop.is_set():
        capture = _open(source)
        if capture is None and not seen:
            raise DataError(f"webcam {where}: OpenCV cannot open it; is it plugged in, and may you read /dev/video*?")
        seen = True
        if capture is not None:
            log.info("%s: camera opened", where)
            try:
                for image in _frames(capture):
                    failures = 0
                    yield Picture(name=None, image=image)
            finally:
                capture.release()
        pause_s = _RETRY_S[min(failures, len(_RETRY_S) - 1)]
        failures += 1
        log.warning("%s: camera gives no picture; trying again in %g s", where, pause_s)
        stop.wait(pause_s)


def _open(source: Source) -> cv2.VideoCapture | None:
    if source.kind == "webcam":
        capture = cv2.VideoCapture(int(source.location) if source.location.isdecimal() else source.location)
    elif source.kind == "url":
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS]
        capture = cv2.VideoCapture(source.location, cv2.CAP_FFMPEG, timeouts)
    else:
        capture = cv2.VideoCapture(source.location)
    return capture if capture.isOpened() else None


def _frames(capture: cv2.VideoCapture) -> Iterator[U8]:
    while True:
        there, image = capture.read()
        if not there:
            return
        yield np.asarray(image, dtype=np.uint8)
