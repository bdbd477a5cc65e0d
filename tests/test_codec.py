"""The wire contract, field by field; packed with msgpack directly so that the codec is not its own judge."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine import codec
from engine.codec import decode_dead, decode_frame, decode_result, encode_dead, encode_frame, encode_result
from engine.errors import ContractError
from engine.types import DeadLetter, Frame, Region, Result

JPEG = {"v": 1, "camera": "cam1", "ts_ns": 1_700_000_000_000_000_000, "codec": "jpeg"}
RAW = {**JPEG, "codec": "raw", "shape": [20, 30, 3], "pixel_format": "RGB8"}


def read(meta: dict[Any, Any], data: bytes | None = b"picture") -> Frame:
    return decode_frame(msgpack.packb(meta), data)


def test_reads_a_minimal_frame() -> None:
    assert read(JPEG) == Frame(camera="cam1", ts_ns=JPEG["ts_ns"], codec="jpeg", data=b"picture")


def test_reads_every_key() -> None:
    tags = {"batch": "b7", "n": 3, "x": 1.5, "ok": True}
    frame = read({**RAW, "id": "part-1", "tags": tags})
    assert (frame.id, frame.shape, frame.pixel_format, frame.tags) == ("part-1", (20, 30, 3), "RGB8", tags)


@pytest.mark.parametrize("extra", [{"future": [1, {"a": None}]}, {5: 1}, {b"x": 1}, {"m": {1: 2, 2: 3}}])
def test_ignores_unknown_keys(extra: dict[Any, Any]) -> None:
    assert read({**JPEG, **extra}) == read(JPEG)


@pytest.mark.parametrize("key", ["v", "camera", "ts_ns", "codec"])
def test_refuses_a_missing_key(key: str) -> None:
    with pytest.raises(ContractError, match=key):
        read({name: value for name, value in JPEG.items() if name != key})


@pytest.mark.parametrize("key", ["shape", "pixel_format"])
def test_refuses_raw_without_its_layout(key: str) -> None:
    with pytest.raises(ContractError, match=key):
        read({name: value for name, value in RAW.items() if name != key})


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"v": True},
        {"v": 1.0},
        {"v": "1"},
        {"camera": 7},
        {"camera": b"cam1"},
        {"camera": ""},
        {"camera": "a b"},
        {"camera": "cam1\n"},
        {"camera": "c" * 65},
        {"ts_ns": True},
        {"ts_ns": 1.0},
        {"ts_ns": None},
        {"codec": "bmp"},
        {"codec": b"jpeg"},
        {"id": None},
        {"id": 5},
        {"id": "i" * 129},
        {"shape": [20, 30]},
        {"shape": [20, 30, 3, 1]},
        {"shape": [20, 30, True]},
        {"shape": [20.0, 30, 3]},
        {"shape": [-20, 30, 3]},
        {"shape": "20x30x3"},
        {"pixel_format": 1},
        {"tags": None},
        {"tags": []},
        {"tags": {"a": None}},
        {"tags": {"a": [1]}},
        {"tags": {"a": b"bytes"}},
        {"tags": {1: "a"}},
        {"tags": {"a": "x" * 4096}},
    ],
)
def test_refuses_a_wrong_value(change: dict[str, Any]) -> None:
    with pytest.raises(ContractError):
        read({**JPEG, **change})


@pytest.mark.parametrize("change", [{"pixel_format": "BayerRG8"}, {"pixel_format": "Mono8"}, {"shape": [20, 30, 1]}])
def test_refuses_a_raw_layout_that_does_not_fit(change: dict[str, Any]) -> None:
    with pytest.raises(ContractError):
        read({**RAW, **change})


def test_an_unknown_codec_is_told_which_there_are() -> None:
    with pytest.raises(ContractError, match="`codec`: expected one of raw, jpeg, png, got 'JPEG'"):
        read({**JPEG, "codec": "JPEG"})


def test_tags_may_fill_exactly_four_kilobytes() -> None:
    tags = {"a": "x" * (4096 - 6)}
    assert len(msgpack.packb(tags)) == 4096
    assert read({**JPEG, "tags": tags}).tags == tags
    with pytest.raises(ContractError, match="4096"):
        read({**JPEG, "tags": {"a": tags["a"] + "x"}})


def test_an_id_may_have_128_characters() -> None:
    assert read({**JPEG, "id": "ü" * 128}).id == "ü" * 128


@pytest.mark.parametrize("value", [msgpack.Timestamp(1), msgpack.ExtType(5, b"x")])
@pytest.mark.parametrize("place", [lambda v: v, lambda v: [v], lambda v: {"deep": [{"er": v}]}, lambda v: {v: 1}])
def test_refuses_extension_types_anywhere(value: Any, place: Any) -> None:
    packed = msgpack.packb(JPEG)
    body = bytes([packed[0] + 1]) + packed[1:] + msgpack.packb("unknown") + _pack(place(value))
    with pytest.raises(ContractError, match="extension"):
        decode_frame(body, b"")


def _pack(value: Any) -> bytes:
    if isinstance(value, dict):
        return bytes([0x80 | len(value)]) + b"".join(_pack(k) + _pack(v) for k, v in value.items())
    if isinstance(value, list):
        return bytes([0x90 | len(value)]) + b"".join(map(_pack, value))
    return msgpack.packb(value)


def test_refuses_duplicate_keys_anywhere() -> None:
    packed = msgpack.packb(JPEG)
    twice = bytes([packed[0] + 1]) + packed[1:] + msgpack.packb("camera") + msgpack.packb("cam2")
    with pytest.raises(ContractError, match="'camera' stands twice"):
        decode_frame(twice, b"")
    nested = b"\x82" + 2 * (msgpack.packb("a") + msgpack.packb(1))
    with pytest.raises(ContractError, match="twice"):
        decode_frame(bytes([packed[0] + 1]) + packed[1:] + msgpack.packb("tags") + nested, b"")


@pytest.mark.parametrize(
    "meta", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x01", b"{}", msgpack.packb(JPEG)[:-1], msgpack.packb(JPEG) + b"\x00"]
)
def test_refuses_what_is_not_one_map(meta: bytes) -> None:
    with pytest.raises(ContractError, match="meta"):
        decode_frame(meta, b"")


@pytest.mark.parametrize("depth", [10, 100_000])
def test_depth_is_no_way_to_crash(depth: int) -> None:
    packed = msgpack.packb(JPEG)
    deep = bytes([packed[0] + 1]) + packed[1:] + msgpack.packb("deep") + b"\x91" * depth + b"\xc0"
    if depth == 10:
        assert decode_frame(deep, b"picture") == read(JPEG)
    else:
        with pytest.raises(ContractError):
            decode_frame(deep, b"")


def test_refuses_text_that_is_not_utf8() -> None:
    packed = msgpack.packb({**JPEG, "camera": "AAAA"}).replace(b"AAAA", b"\xff\xfeAA")
    with pytest.raises(ContractError, match="msgpack"):
        decode_frame(packed, b"")


def test_refuses_an_entry_without_data() -> None:
    with pytest.raises(ContractError, match="data"):
        read(JPEG, None)


@settings(max_examples=150)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_frame_or_a_contract_error(meta: bytes) -> None:
    with suppress(ContractError):
        decode_frame(meta, b"")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from([*RAW, "id", "tags", "other"]), VALUES), st.sampled_from([JPEG, RAW]))
def test_a_mutated_meta_gives_a_frame_or_a_contract_error(change: dict[str, Any], base: dict[str, Any]) -> None:
    try:
        frame = read({**base, **change})
    except ContractError:
        return
    assert type(frame.ts_ns) is int
    assert len(frame.camera) <= 64


@settings(max_examples=150)
@given(st.sampled_from([JPEG, RAW, {**RAW, "id": "x"}]), st.data())
def test_the_short_way_to_read_a_meta_agrees_with_the_long_one(base: dict[str, Any], data: st.DataObject) -> None:
    packed = bytearray(msgpack.packb(base))
    for _ in range(data.draw(st.integers(0, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    plain = codec._plainly(bytes(packed))
    if plain is not None:
        assert codec._strictly(bytes(packed)) == plain


def test_a_frame_survives_the_round_trip() -> None:
    frame = Frame("cam1", 5, "raw", b"x" * 768, "id", (16, 16, 3), "BGR8", {"a": 1})
    fields = encode_frame(frame)
    assert decode_frame(fields["meta"], fields["data"]) == frame


RESULT = Result(
    frame="1-1",
    id="part-1",
    camera="cam1",
    ts_ns=5,
    tags={"a": 1},
    status="ok",
    pred_score=0.75,
    pred_label=True,
    decision="reject",
    raw_score=3.5,
    scores={"fyd": 0.75},
    regions=(Region((1, 2, 3, 4), 9, 0.9),),
    model="screw@1",
    timing_ms={"queue": 1.0, "decode": 2.0, "infer": 3.0, "total": 7.0},
)


def test_a_result_holds_the_documented_keys() -> None:
    meta = msgpack.unpackb(encode_result(RESULT)["meta"])
    assert meta == {
        "v": 1,
        "frame": "1-1",
        "id": "part-1",
        "camera": "cam1",
        "ts_ns": 5,
        "tags": {"a": 1},
        "status": "ok",
        "pred_score": 0.75,
        "pred_label": True,
        "decision": "reject",
        "raw_score": 3.5,
        "scores": {"fyd": 0.75},
        "regions": [{"bbox": [1, 2, 3, 4], "area": 9, "score": 0.9}],
        "model": "screw@1",
        "timing_ms": {"queue": 1.0, "decode": 2.0, "infer": 3.0, "total": 7.0},
    }


def test_pictures_are_lossless_png() -> None:
    rng = np.random.default_rng(0)
    anomaly_map = rng.integers(0, 65536, (40, 50), dtype=np.uint16)
    pred_mask = (anomaly_map >= 32768).astype(np.uint8) * 255
    fields = encode_result(_with(anomaly_map=anomaly_map, pred_mask=pred_mask))
    seen_map, seen_mask = (Image.open(io.BytesIO(fields[name])) for name in ("anomaly_map", "pred_mask"))
    assert (seen_map.mode, seen_mask.mode) == ("I;16", "L")
    np.testing.assert_array_equal(np.asarray(seen_map), anomaly_map)
    np.testing.assert_array_equal(np.asarray(seen_mask), pred_mask)
    back = decode_result({name.encode(): value for name, value in fields.items()})
    np.testing.assert_array_equal(back.anomaly_map, anomaly_map)
    np.testing.assert_array_equal(back.pred_mask, pred_mask)


def test_a_result_survives_the_round_trip() -> None:
    assert decode_result({b"meta": encode_result(RESULT)["meta"]}) == RESULT


def test_refuses_what_is_no_result() -> None:
    with pytest.raises(ContractError, match="results stream"):
        decode_result({b"meta": msgpack.packb({"v": 1})})
    with pytest.raises(ContractError, match="reads 1"):
        decode_result({b"meta": msgpack.packb({"v": 2})})


def test_a_dead_letter_keeps_the_frame_as_it_came() -> None:
    letter = DeadLetter("decode", "truncated", "screw@1", 2, "host-1", 9)
    fields = encode_dead(letter, frame="1-1", line="line1", meta=b"\xc1 not msgpack", data=None)
    assert fields["meta"] == b"\xc1 not msgpack"
    assert fields["data"] == b""
    assert msgpack.unpackb(fields["error"]) == {
        "frame": "1-1",
        "line": "line1",
        "model": "screw@1",
        "type": "decode",
        "message": "truncated",
        "deliveries": 2,
        "consumer": "host-1",
        "ts_ns": 9,
    }
    entry = decode_dead({name.encode(): value for name, value in fields.items()})
    assert (entry.frame, entry.line, entry.letter) == ("1-1", "line1", letter)


def test_refuses_what_is_no_dead_letter() -> None:
    with pytest.raises(ContractError, match="dead stream"):
        decode_dead({b"error": msgpack.packb({"type": "decode"})})


def _with(**changes: Any) -> Result:
    return Result(**{name: changes.get(name, getattr(RESULT, name)) for name in RESULT.__slots__})
