"""Everything that a broken or hostile producer may send, through a real server, each beside an innocent frame."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import cv2
import msgpack
import numpy as np
from PIL import Image

from engine.config import Config

META = {"v": 1, "camera": "cam1", "ts_ns": 1, "codec": "png"}
RAW = {"codec": "raw", "shape": [32, 32, 3], "pixel_format": "RGB8"}


def meta(**changes: object) -> bytes:
    """A good frame's `meta` with changes; None takes a key away."""
    return msgpack.packb({key: value for key, value in (META | changes).items() if value is not None})


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width: int, height: int) -> bytes:
    """A grey PNG of zeros, of which a million pixels take a kilobyte."""
    packer = zlib.compressobj()
    rows = b"".join(packer.compress(bytes(1 + width)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def packed_map(*pairs: tuple[object, object]) -> bytes:
    """A msgpack map whose keys may stand twice."""
    return bytes([0x80 | len(pairs)]) + b"".join(msgpack.packb(key) + msgpack.packb(value) for key, value in pairs)


PICTURE = Image.fromarray(np.full((32, 32, 3), 20, np.uint8))
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 99, (64, 64, 3), np.uint8))
PNG, JPEG = saved(PICTURE, "PNG"), saved(NOISE, "JPEG")
ROTATED = Image.Exif()
ROTATED[0x0112] = 6

DEAD = {
    "corrupt jpeg": ("decode", meta(codec="jpeg"), JPEG[:400] + bytes(100) + JPEG[500:]),
    "corrupt png": ("decode", meta(), PNG[:45] + b"\x00" + PNG[46:]),
    "empty png": ("decode", meta(), b""),
    "empty jpeg": ("decode", meta(codec="jpeg"), b""),
    "empty raw": ("contract", meta(**RAW), b""),
    "truncated jpeg": ("decode", meta(codec="jpeg"), JPEG[: len(JPEG) // 2]),
    "truncated png": ("decode", meta(), PNG[:-20]),
    "oversized": ("too_large", meta(), PNG + bytes(1 << 20)),
    "wrong shape": ("contract", meta(**RAW), bytes(32 * 32)),
    "negative shape": ("contract", meta(**{**RAW, "shape": [-32, -32, 3]}), bytes(3072)),
    "two-sided shape": ("contract", meta(**{**RAW, "shape": [32, 96]}), bytes(3072)),
    "astronomical shape": ("too_large", meta(**{**RAW, "shape": [2**62, 2**62, 3]}), b""),
    "no shape": ("contract", meta(**{**RAW, "shape": None}), bytes(3072)),
    "no pixel format": ("contract", meta(**{**RAW, "pixel_format": None}), bytes(3072)),
    "wrong pixel format": ("contract", meta(**{**RAW, "pixel_format": "BayerRG8"}), bytes(3072)),
    "png called jpeg": ("decode", meta(codec="jpeg"), PNG),
    "jpeg called png": ("decode", meta(), JPEG),
    "unknown codec": ("contract", meta(codec="bmp"), saved(PICTURE, "BMP")),
    "text": ("decode", meta(), b"not a picture"),
    "bad msgpack": ("contract", b"\xc1", PNG),
    "empty meta": ("contract", b"", PNG),
    "a list": ("contract", msgpack.packb([META]), PNG),
    "json": ("contract", b'{"v": 1}', PNG),
    "a map that claims four billion keys": ("contract", b"\xdf\xff\xff\xff\xff", PNG),
    "nested too deeply": ("contract", b"\x91" * 100_000, PNG),
    **{f"without {key}": ("contract", meta(**{key: None}), PNG) for key in META},
    "newer version": ("contract", meta(v=2), PNG),
    "version true": ("contract", meta(v=True), PNG),
    "time as text": ("contract", meta(ts_ns="1"), PNG),
    "camera with a space": ("contract", meta(camera="cam 1"), PNG),
    "camera with a line break": ("contract", meta(camera="cam1\n"), PNG),
    "id of 129 characters": ("contract", meta(id="x" * 129), PNG),
    "tags over 4 kB": ("contract", meta(tags={"part": "x" * 4097}), PNG),
    "tags in tags": ("contract", meta(tags={"part": {"a": 1}}), PNG),
    "duplicate key": ("contract", packed_map(*META.items(), ("camera", "cam2")), PNG),
    "extension type": ("contract", meta(extra=msgpack.ExtType(5, b"x")), PNG),
    "timestamp": ("contract", meta(extra=msgpack.Timestamp(1)), PNG),
    "trailing bytes": ("contract", meta() + b"\x00", PNG),
    "1 x 1": ("too_small", meta(), png_of(1, 1)),
    "5000 x 1": ("too_small", meta(), png_of(5000, 1)),
    "10,000 x 10,000 png bomb": ("too_large", meta(), png_of(10_000, 10_000)),
    "10,000 x 10,000 jpeg bomb": ("too_large", meta(codec="jpeg"), saved(Image.new("L", (10_000, 10_000)), "JPEG")),
}
FINE = {
    "plain": (meta(), PNG),
    "rotated by EXIF": (meta(codec="jpeg"), saved(PICTURE.resize((64, 32)), "JPEG", exif=ROTATED)),
    "16 bits": (meta(), cv2.imencode(".png", np.full((32, 32, 3), 5000, np.uint16))[1].tobytes()),
    "palette": (meta(), saved(PICTURE.convert("P"), "PNG")),
    "alpha": (meta(), saved(PICTURE.convert("RGBA"), "PNG")),
    "cmyk": (meta(codec="jpeg"), saved(PICTURE.convert("CMYK"), "JPEG")),
    "grey": (meta(codec="jpeg"), saved(PICTURE.convert("L"), "JPEG")),
    "unknown key": (meta(extra=[1, {"a": 2}]), PNG),
    "id of 128 characters": (meta(id="x" * 128), PNG),
    "tags of almost 4 kB": (meta(tags={"part": "x" * 4000}), PNG),
    "raw": (meta(**RAW), bytes([20]) * 3072),
}


def test_each_bad_frame_is_dead_with_its_reason_and_every_other_has_its_result(
    line, make_config: Callable[..., Config], run_burst
) -> None:
    kinds, good = {}, []
    for name, (kind, packed, data) in DEAD.items():
        kinds[line.push_fields({"meta": packed, "data": data})] = (name, kind)
        good.append(line.push())
    good += [line.push_fields({"meta": packed, "data": data}) for packed, data in FINE.values()]
    run_burst(make_config(line, max_frame_bytes=1 << 20))
    dead = {letter.frame: letter for letter in line.dead()}
    assert {entry: (kinds[entry][0], letter.letter.type) for entry, letter in dead.items()} == kinds
    assert sorted(result.frame for result in line.results()) == sorted(good)
    assert {result.decision for result in line.results()} == {"good"}
    assert line.ends() == sorted([*kinds, *good])
    for entry, (name, _) in kinds.items():
        assert len(dead[entry].letter.message) > 10, name
        assert "\n" not in dead[entry].letter.message, name
        assert (dead[entry].meta, dead[entry].data) == DEAD[name][1:], name


def test_an_exif_rotation_does_not_turn_the_mask(line, make_config: Callable[..., Config], run_burst) -> None:
    bright = saved(Image.new("RGB", (64, 32), (230, 230, 230)), "JPEG", exif=ROTATED)
    line.push_fields({"meta": meta(codec="jpeg"), "data": bright})
    run_burst(make_config(line))
    (result,) = line.results()
    assert result.pred_mask.shape == (32, 64)
    assert result.regions[0].bbox == (0, 0, 64, 32)
