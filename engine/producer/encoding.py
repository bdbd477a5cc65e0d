"""From a source's picture to the wire's codec, without encoding again where the file already is what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.errors import DecodeError
from engine.images import JPEG_MAGIC, PNG_MAGIC, read_image
from engine.producer.sources import Picture
from engine.types import U8, Codec, PixelFormat

_MAGIC: dict[Codec, bytes] = {"jpeg": JPEG_MAGIC, "png": PNG_MAGIC}
_JPEG_SETTINGS = (cv2.IMWRITE_JPEG_QUALITY, 95)
_PNG_SETTINGS = (cv2.IMWRITE_PNG_COMPRESSION, 1)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture as the wire carries it; `shape` (height, width, channels) and `pixel_format` for `raw` only."""

    codec: Codec
    data: bytes
    shape: tuple[int, int, int] | None = None
    pixel_format: PixelFormat | None = None


def encode(picture: Picture, codec: Codec | None) -> Encoded:
    """A picture in a codec, or for None as it is: JPEG and PNG files untouched, other files PNG, video JPEG.

    Raises DecodeError for a file that cannot be read, or that has to be decoded and is no picture.
    """
    if picture.file is None:
        assert picture.image is not None
        return _encode_image(picture.image, codec or "jpeg")
    data = _read(picture.file)
    found = sniff(data)
    if found is not None and codec in (None, found):
        return Encoded(found, data)
    rgb = _decode(picture.file)
    return _encode_image(np.ascontiguousarray(rgb[..., ::-1]), codec or "png")


def sniff(data: bytes) -> Codec | None:
    """The codec that a file's first bytes claim, whatever its name is."""
    return next((codec for codec, magic in _MAGIC.items() if data.startswith(magic)), None)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DecodeError(f"{file}: cannot be read ({error.strerror})") from None


def _decode(file: Path) -> U8:
    try:
        return read_image(file)
    except DecodeError as error:
        raise DecodeError(f"{file}: {error}") from None


def _encode_image(bgr: U8, codec: Codec) -> Encoded:
    """(H, W, 3) BGR -> the codec's bytes; a grey picture travels as one channel, as a monochrome camera sends it."""
    pixels = bgr[..., :1] if _is_grey(bgr) else bgr
    if codec == "raw":
        height, width, channels = pixels.shape
        return Encoded("raw", pixels.tobytes(), (height, width, channels), "BGR8" if channels == 3 else "Mono8")
    if codec == "jpeg":
        return Encoded("jpeg", cv2.imencode(".jpg", pixels, _JPEG_SETTINGS)[1].tobytes())
    return Encoded("png", cv2.imencode(".png", pixels, _PNG_SETTINGS)[1].tobytes())


def _is_grey(bgr: U8) -> bool:
    blue, green, red = cv2.split(bgr)
    return not cv2.norm(blue, green, cv2.NORM_INF) and not cv2.norm(green, red, cv2.NORM_INF)
