"""Pictures as arrays: decoding the wire's codecs and resizing to a network's input. Pure functions, RGB throughout.

JPEG goes through libjpeg-turbo in its strict mode, because OpenCV's reader shows a corrupt picture as if it were
whole. Sizes are read from the header before anything is decoded, so that a small file cannot ask for a huge array.
Every decoder here runs without the interpreter lock.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import simplejpeg

from engine.errors import ContractError, DecodeError, TooLargeError, TooSmallError
from engine.types import U8, Frame

MIN_SIDE_PX = 16
JPEG_MAGIC = b"\xff\xd8\xff"
MAX_JPEG_SCANS = 100  # encoders write ten or so; each passes over all pixels, however few bytes it has
_JPEG_SCAN = b"\xff\xda"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the last byte of a marker that begins a frame
_JPEG_SEQUENTIAL = frozenset({0xC0, 0xC1})
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_COLOUR = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_CHUNK_FRAME_BYTES = 12  # length, type, CRC


def resize(image: U8, height: int, width: int) -> U8:
    """(H, W, 3) -> (height, width, 3): area averaging where the picture shrinks to less than half, else bilinear.

    The one resize of the project: training, evaluation and serving all call it, so that their scores agree. Bilinear
    sampling aliases only beyond a factor of two, and costs a sixth of area averaging.
    """
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] > 2 * height or image.shape[1] > 2 * width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)


def decode(frame: Frame, *, max_pixels: int, max_frame_bytes: int) -> U8:
    """A frame's picture as (H, W, 3) RGB, contiguous; not writable where it is a view of the frame's own bytes.

    Raises TooLargeError or TooSmallError from the declared size before decoding, ContractError for raw bytes that do
    not fill their shape, DecodeError for a picture that is no picture of its codec, truncated or corrupt.
    """
    if len(frame.data) > max_frame_bytes:
        raise TooLargeError(
            f"data: {len(frame.data)} bytes, over delivery.max_frame_bytes = {max_frame_bytes}; "
            f"compress the frame or raise the limit"
        )
    if frame.codec == "raw":
        return _decode_raw(frame, max_pixels)
    if frame.codec == "jpeg":
        return _decode_jpeg(frame.data, max_pixels)
    return _decode_png(frame.data, max_pixels)


def read_image(path: Path) -> U8:
    """The picture in a file as (H, W, 3) RGB; JPEG and PNG exactly as from the wire, other formats through OpenCV.

    Raises OSError where the file cannot be read, DecodeError where it is no whole picture.
    """
    data = path.read_bytes()
    if data.startswith(JPEG_MAGIC):
        return _jpeg_pixels(data)
    if data.startswith(PNG_MAGIC):
        return _png_pixels(data, _png_header(data)[2])
    return _opencv_pixels(data, _COLOUR | cv2.IMREAD_ANYDEPTH)


def _decode_raw(frame: Frame, max_pixels: int) -> U8:
    if frame.shape is None or frame.pixel_format is None:
        raise ContractError("meta: codec 'raw' needs `shape` [height, width, channels] and `pixel_format`")
    height, width, channels = frame.shape
    _check_size(height, width, max_pixels)
    if len(frame.data) != height * width * channels:
        raise ContractError(
            f"data: expected {height * width * channels} bytes for shape {list(frame.shape)}, got {len(frame.data)}; "
            f"send contiguous rows"
        )
    pixels: U8 = np.frombuffer(frame.data, np.uint8).reshape(height, width, channels)
    if frame.pixel_format == "RGB8":
        return pixels
    order = cv2.COLOR_GRAY2RGB if frame.pixel_format == "Mono8" else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(pixels, order), dtype=np.uint8)


def _decode_jpeg(data: bytes, max_pixels: int) -> U8:
    if not data.startswith(JPEG_MAGIC):
        raise DecodeError(f"data: codec is 'jpeg' but the bytes begin with {data[:4].hex(' ')!r}, expected 'ff d8 ff'")
    try:
        height, width = simplejpeg.decode_jpeg_header(data)[:2]
    except ValueError as error:
        raise _jpeg_error(error) from None
    _check_size(int(height), int(width), max_pixels)
    if not _is_sequential(data) and (scans := data.count(_JPEG_SCAN)) > MAX_JPEG_SCANS:
        raise _jpeg_error(f"{scans} scans, at most {MAX_JPEG_SCANS}")
    return _jpeg_pixels(data)


def _is_sequential(data: bytes) -> bool:
    """Whether a JPEG's header plainly says that each pixel is coded once: marker after marker up to the frame's."""
    start = 2
    while data[start : start + 1] == b"\xff" and start + 4 <= len(data):
        if data[start + 1] in _JPEG_FRAMES:
            return data[start + 1] in _JPEG_SEQUENTIAL
        start += 2 + int.from_bytes(data[start + 2 : start + 4])
    return False


def _jpeg_pixels(data: bytes) -> U8:
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB"), dtype=np.uint8)
    except ValueError as error:
        raise _jpeg_error(error) from None
    except MemoryError:
        raise TooLargeError("picture: not enough memory to decode it; lower delivery.max_pixels") from None


def _jpeg_error(what: object) -> DecodeError:
    return DecodeError(f"data: JPEG is truncated or corrupt ({what}); check the camera and its link")


def _decode_png(data: bytes, max_pixels: int) -> U8:
    height, width, depth = _png_header(data)
    _check_size(height, width, max_pixels)
    return _png_pixels(data, depth)


def _png_header(data: bytes) -> tuple[int, int, int]:
    """(height, width, bits per sample) of a PNG, read from its first chunk."""
    if not data.startswith(PNG_MAGIC):
        raise DecodeError(f"data: codec is 'png' but the bytes begin with {data[:8].hex(' ')!r}, which is no PNG")
    if len(data) < 33 or data[8:16] != b"\0\0\0\x0dIHDR":
        raise _png_error("it does not begin with a whole IHDR chunk")
    return int.from_bytes(data[20:24]), int.from_bytes(data[16:20]), data[24]


def _png_pixels(data: bytes, depth: int) -> U8:
    _check_png_chunks(data)
    return _opencv_pixels(data, _COLOUR | cv2.IMREAD_ANYDEPTH if depth == 16 else _COLOUR)


def _check_png_chunks(data: bytes) -> None:
    """Walk the chunks up to IEND and verify lengths and CRCs.

    libpng only warns about some of them, and OpenCV first allocates the gigabytes that a damaged length claims.
    """
    view = memoryview(data)
    start = len(PNG_MAGIC)
    kind = b""
    while kind != b"IEND":
        end = start + _CHUNK_FRAME_BYTES + int.from_bytes(view[start : start + 4])
        if end > len(data):
            raise _png_error(f"it ends inside a chunk at byte {start}, before IEND")
        kind = bytes(view[start + 4 : start + 8])
        if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            raise _png_error(f"the checksum of the chunk at byte {start} is wrong")
        start = end


def _png_error(what: str) -> DecodeError:
    return DecodeError(f"data: PNG is truncated or corrupt ({what}); check the camera and its link")


def _opencv_pixels(data: bytes, flags: int) -> U8:
    """Decode with OpenCV; 16 bits become 8 as round(value / 257)."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:
        raise DecodeError(f"data: OpenCV cannot decode the picture ({error.err})") from None
    if image is None:
        raise DecodeError("data: the picture is truncated, corrupt, or of a format that OpenCV does not read")
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=1 / 257)
    if image.dtype != np.uint8:
        raise DecodeError(f"data: expected samples of 8 or 16 bits, got {image.dtype}; convert the picture")
    return cast(U8, image)


def _check_size(height: int, width: int, max_pixels: int) -> None:
    """The size limits, checked on what the header or the meta declares."""
    if height * width > max_pixels:
        raise TooLargeError(
            f"picture: {height} x {width} px, over delivery.max_pixels = {max_pixels}; shrink it or raise the limit"
        )
    if height < MIN_SIDE_PX or width < MIN_SIDE_PX:
        raise TooSmallError(f"picture: {height} x {width} px, the least is {MIN_SIDE_PX} x {MIN_SIDE_PX}")
