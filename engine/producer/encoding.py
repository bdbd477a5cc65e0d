"""From a source's picture to the wire's codec, without encoding again where the file already is what was asked for."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from engine.errors import DecodeError
from engine.producer.sources import Picture
from engine.types import U8, Codec, PixelFormat

_MAGIC: dict[Codec, bytes] = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n"}
_JPEG_QUALITY = 95


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture as the wire carries it; `shape` (height, width, channels) and `pixel_format` for `raw` only."""

    codec: Codec
    data: bytes
    shape: tuple[int, int, int] | None = None
    pixel_format: PixelFormat | None = None


def encode(picture: Picture, codec: Codec | None) -> Encoded:
    """A picture in a codec, or for None as it is: JPEG and PNG files untouched, other files PNG, video JPEG.

    Raises DecodeError for a file that has to be decoded and is no picture.
    """
    if picture.data is None:
        assert picture.image is not None
        return _encode_image(picture.image, codec or "jpeg")
    found = sniff(picture.data)
    if found is not None and codec in (None, found):
        return Encoded(found, picture.data)
    return _encode_image(_decode(picture), codec or "png")


def sniff(data: bytes) -> Codec | None:
    """The codec that a file's first bytes claim, whatever its name is."""
    return next((codec for codec, magic in _MAGIC.items() if data.startswith(magic)), None)


def _decode(picture: Picture) -> U8:
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION  # 8 bits, grey stays grey
    buffer = np.frombuffer(picture.data or b"", np.uint8)
    image = cv2.imdecode(buffer, flags) if buffer.size else None
    if image is None:
        raise DecodeError(f"{picture.name}: not a picture that OpenCV reads; remove the file or make it again")
    return np.asarray(image, np.uint8)


def _encode_image(image: U8, codec: Codec) -> Encoded:
    if codec == "raw":
        height, width = image.shape[:2]
        grey = image.ndim == 2
        shape = (height, width, 1 if grey else 3)
        return Encoded("raw", np.ascontiguousarray(image).tobytes(), shape, "Mono8" if grey else "BGR8")
    if codec == "jpeg":
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    else:
        _, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return Encoded(codec, data.tobytes())
