"""Decoding against Pillow, damage at many places, and the limits that a header must not get past."""

from __future__ import annotations

import io
import struct
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from engine.errors import ContractError, DecodeError, TooLargeError, TooSmallError
from engine.images import decode, read_image, resize
from engine.types import U8, Codec, Frame

LIMITS = {"max_pixels": 67_108_864, "max_frame_bytes": 33_554_432}


def scene(height: int = 70, width: int = 90, channels: int = 3) -> U8:
    """Blobs and noise: smooth enough for JPEG, irregular enough to show a wrong order of channels or rows."""
    noise = np.random.default_rng(7).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1.5).reshape(height, width, channels)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def frame(codec: Codec, data: bytes, **changes: object) -> Frame:
    return Frame(**{"camera": "c", "ts_ns": 0, "codec": codec, "data": data, **changes})


def decoded(codec: Codec, data: bytes, **changes: object) -> U8:
    image = decode(frame(codec, data, **changes), **LIMITS)
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.flags.c_contiguous
    return image


def pillow_rgb(data: bytes) -> U8:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_raw_layouts() -> None:
    rgb = scene()
    np.testing.assert_array_equal(decoded("raw", rgb.tobytes(), shape=rgb.shape, pixel_format="RGB8"), rgb)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    np.testing.assert_array_equal(decoded("raw", bgr.tobytes(), shape=rgb.shape, pixel_format="BGR8"), rgb)
    grey = scene(channels=1)
    image = decoded("raw", grey.tobytes(), shape=grey.shape, pixel_format="Mono8")
    np.testing.assert_array_equal(image, np.repeat(grey, 3, axis=2))


@pytest.mark.parametrize("size", [-1, 1])
def test_raw_bytes_must_fill_their_shape(size: int) -> None:
    data = bytes(20 * 30 * 3 + size)
    with pytest.raises(ContractError, match="1800 bytes"):
        decoded("raw", data, shape=(20, 30, 3), pixel_format="RGB8")


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_equals_pillow(progressive: bool, subsampling: int) -> None:
    data = saved(Image.fromarray(scene()), "JPEG", quality=92, progressive=progressive, subsampling=subsampling)
    np.testing.assert_array_equal(decoded("jpeg", data), pillow_rgb(data))


def test_grey_jpeg_becomes_rgb() -> None:
    data = saved(Image.fromarray(scene(channels=1)[..., 0]), "JPEG")
    np.testing.assert_array_equal(decoded("jpeg", data), pillow_rgb(data))


def test_cmyk_jpeg_becomes_rgb() -> None:
    data = saved(Image.fromarray(scene()).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decoded("jpeg", data).astype(int) - pillow_rgb(data)).max() <= 2


def test_exif_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    data = saved(Image.fromarray(scene()), "JPEG", exif=exif, quality=92)
    assert decoded("jpeg", data).shape == (70, 90, 3)
    data = saved(Image.fromarray(scene()), "PNG", exif=exif)
    assert decoded("png", data).shape == (70, 90, 3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_png_modes_equal_pillow(mode: str) -> None:
    rgba = Image.fromarray(scene(channels=4), "RGBA")
    picture = rgba.convert("RGB").quantize(17) if mode == "P" else rgba if mode == "RGBA" else rgba.convert(mode)
    data = saved(picture, "PNG")
    np.testing.assert_array_equal(decoded("png", data), np.asarray(picture.convert("RGB")))


def test_transparent_palette_png() -> None:
    picture = Image.fromarray(scene()).quantize(17)
    data = saved(picture, "PNG", transparency=3)
    np.testing.assert_array_equal(decoded("png", data), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_scaled_to_8(channels: int) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (20, 30, channels), dtype=np.uint16)
    values.flat[:3] = (0, 65535, 32896)
    data = cv2.imencode(".png", values)[1].tobytes()  # OpenCV writes BGR(A)
    rgb = np.repeat(values, 3, axis=2) if channels == 1 else values[..., 2::-1]
    np.testing.assert_array_equal(decoded("png", data), np.round(rgb / 257).astype(np.uint8))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_anywhere_is_refused(progressive: bool) -> None:
    data = saved(Image.fromarray(scene()), "JPEG", quality=90, progressive=progressive)
    for size in [*range(3, len(data), 61), len(data) - 3, len(data) - 2, len(data) - 1]:
        with pytest.raises(DecodeError):
            decoded("jpeg", data[:size])


def test_a_jpeg_that_lost_its_middle_is_refused() -> None:
    data = saved(Image.fromarray(scene()), "JPEG", quality=90)
    for start in range(700, len(data) - 300, 97):
        with pytest.raises(DecodeError):
            decoded("jpeg", data[:start] + data[start + 200 :])


@pytest.mark.parametrize("end", [b"\xff\xd9", b"\x00" * 50 + b"\xff\xd9"])
def test_a_cut_jpeg_with_a_forged_end_is_refused(end: bytes) -> None:
    data = saved(Image.fromarray(scene()), "JPEG", quality=90)
    with pytest.raises(DecodeError, match="truncated or corrupt"):
        decoded("jpeg", data[: len(data) // 2] + end)


def test_bytes_after_the_end_of_a_picture_do_no_harm() -> None:
    jpeg = saved(Image.fromarray(scene()), "JPEG")
    np.testing.assert_array_equal(decoded("jpeg", jpeg + bytes(100)), pillow_rgb(jpeg))
    png = saved(Image.fromarray(scene()), "PNG")
    np.testing.assert_array_equal(decoded("png", png + bytes(100)), scene())


def test_a_png_cut_or_flipped_anywhere_is_refused() -> None:
    data = saved(Image.fromarray(scene()), "PNG")
    for position in range(8, len(data), 211):
        with pytest.raises(DecodeError):
            decoded("png", data[:position])
        flipped = bytearray(data)
        flipped[position] ^= 0x10
        with pytest.raises((DecodeError, TooLargeError)):
            decoded("png", bytes(flipped))


def test_damage_in_a_chunk_that_no_decoder_needs_is_damage() -> None:
    """A flipped bit there says that the link flips bits; libpng only warns."""
    note = PngInfo()
    note.add_text("note", "x" * 100)
    data = saved(Image.fromarray(scene()), "PNG", pnginfo=note)
    with pytest.raises(DecodeError, match="checksum"):
        decoded("png", data.replace(b"xxx", b"xyx", 1))


def test_a_chunk_that_claims_gigabytes_is_refused_before_they_are_allocated() -> None:
    data = saved(Image.fromarray(scene()), "PNG")
    position = data.index(b"IDAT") - 4
    started_s = time.process_time()
    with pytest.raises(DecodeError, match="inside a chunk"):
        decoded("png", data[:position] + struct.pack(">I", 3 << 30) + data[position + 4 :])
    assert time.process_time() - started_s < 0.5


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xd8\xff", b"GIF89a" + bytes(50), b"\x89PNG\r\n\x1a\n"])
@pytest.mark.parametrize("codec", ["jpeg", "png"])
def test_no_picture_is_refused(codec: Codec, data: bytes) -> None:
    with pytest.raises(DecodeError):
        decoded(codec, data)


def test_the_codec_must_be_what_the_bytes_are() -> None:
    picture = Image.fromarray(scene())
    with pytest.raises(DecodeError, match="codec is 'jpeg'"):
        decoded("jpeg", saved(picture, "PNG"))
    with pytest.raises(DecodeError, match="codec is 'png'"):
        decoded("png", saved(picture, "JPEG"))


def test_a_bomb_is_refused_by_its_header() -> None:
    row = zlib.compress(bytes(1 + 3 * 100))
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0))
    with pytest.raises(TooLargeError, match="10000 x 10000"):
        decoded("png", bomb + chunk(b"IDAT", row) + chunk(b"IEND", b""))
    jpeg = bytearray(saved(Image.fromarray(scene()), "JPEG"))
    size = jpeg.index(b"\xff\xc0") + 5
    jpeg[size : size + 4] = struct.pack(">HH", 10_000, 10_000)
    with pytest.raises(TooLargeError, match="10000 x 10000"):
        decoded("jpeg", bytes(jpeg))
    with pytest.raises(TooLargeError, match="10000 x 10000"):
        decoded("raw", b"", shape=(10_000, 10_000, 3), pixel_format="RGB8")


def test_a_jpeg_of_endless_scans_is_refused_by_their_number() -> None:
    """Each scan goes over the whole picture: a small file could keep a decoder busy for minutes."""
    data = saved(Image.new("RGB", (4000, 4000)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    started_s = time.process_time()
    with pytest.raises(DecodeError, match="210 scans"):
        decoded("jpeg", data[:-2] + 200 * last + data[-2:])
    assert time.process_time() - started_s < 0.5


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_limits_are_inclusive() -> None:
    data = saved(Image.fromarray(scene(20, 30)), "PNG")
    assert decode(frame("png", data), max_pixels=600, max_frame_bytes=len(data)).shape == (20, 30, 3)
    with pytest.raises(TooLargeError, match="max_pixels = 599"):
        decode(frame("png", data), max_pixels=599, max_frame_bytes=len(data))
    with pytest.raises(TooLargeError, match="max_frame_bytes"):
        decode(frame("png", data), max_pixels=600, max_frame_bytes=len(data) - 1)


@pytest.mark.parametrize("shape", [(15, 16), (16, 15), (1, 1)])
def test_small_pictures_are_refused(shape: tuple[int, int]) -> None:
    picture = Image.fromarray(scene(*shape))
    for codec in ("png", "jpeg"):
        with pytest.raises(TooSmallError, match="16 x 16"):
            decoded(codec, saved(picture, codec.upper()))
    with pytest.raises(TooSmallError):
        decoded("raw", bytes(shape[0] * shape[1] * 3), shape=(*shape, 3), pixel_format="RGB8")


def test_the_smallest_picture_is_accepted() -> None:
    assert decoded("png", saved(Image.fromarray(scene(16, 16)), "PNG")).shape == (16, 16, 3)


def test_files_are_read_like_frames(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    for kind in ("JPEG", "PNG", "BMP", "TIFF"):
        path.write_bytes(saved(Image.fromarray(scene()), kind))
        np.testing.assert_array_equal(read_image(path), pillow_rgb(path.read_bytes()))
    path.write_bytes(b"no picture")
    with pytest.raises(DecodeError):
        read_image(path)
    with pytest.raises(OSError, match="missing"):
        read_image(tmp_path / "missing")


def test_resize_averages_where_it_shrinks_by_more_than_half() -> None:
    image = scene(120, 160)
    np.testing.assert_array_equal(resize(image, 120, 160), image)
    small = resize(image, 30, 40)
    means = image.reshape(30, 4, 40, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - means).max() <= 0.5 + 1e-6
    assert resize(image, 200, 100).shape == (200, 100, 3)
