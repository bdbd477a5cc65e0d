"""The wire contract in both directions: frames, results and dead letters as the fields of stream entries.

Reading is strict: what breaks the contract is refused with a ContractError that names the key, so that a broken
producer is found on its first frame. Field names and meanings are those of docs/wire.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, get_args

import cv2
import msgpack
import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET, UnsetType

from engine.errors import ContractError
from engine.types import Codec, DeadLetter, Drift, Frame, PixelFormat, Region, Result, Tag

VERSION: Final = 1
META: Final = "meta"
DATA: Final = "data"
ERROR: Final = "error"
ANOMALY_MAP: Final = "anomaly_map"
PRED_MASK: Final = "pred_mask"
MAX_ID_CHARS: Final = 128
MAX_TAGS_BYTES: Final = 4096

_CHANNELS: Mapping[PixelFormat, int] = {"RGB8": 3, "BGR8": 3, "Mono8": 1}
_PLAIN_RESULT_KEYS: Final = [
    *("frame", "id", "camera", "ts_ns", "tags", "status", "pred_score", "pred_label"),
    *("decision", "raw_score", "scores", "model", "timing_ms"),
]
_LETTER_KEYS: Final = ("type", "message", "model", "deliveries", "consumer", "ts_ns")
_MAP_SETTINGS = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)
_MASK_SETTINGS = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE)

Fields = dict[str, bytes]
Document = dict[str, Any]
Side = Annotated[int, msgspec.Meta(ge=0)]


class _FrameMeta(msgspec.Struct, frozen=True):
    """The keys of a frame's `meta`; others are ignored."""

    v: Literal[1]
    camera: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9._-]{1,64}\Z")]
    ts_ns: int
    codec: Codec
    id: Annotated[str, msgspec.Meta(max_length=MAX_ID_CHARS)] | UnsetType = UNSET
    shape: tuple[Side, Side, Side] | UnsetType = UNSET
    pixel_format: str | UnsetType = UNSET
    tags: dict[str, Tag] | UnsetType = UNSET


_FRAME_KEYS: Final = _FrameMeta.__struct_fields__
_FRAME_DECODER: Final = msgspec.msgpack.Decoder(_FrameMeta)


@dataclass(frozen=True, slots=True)
class DeadEntry:
    """A dead letter as it lies in its stream: whose it is, why, and the frame's fields as they came."""

    frame: str
    line: str
    letter: DeadLetter
    meta: bytes
    data: bytes


def encode_frame(frame: Frame) -> Fields:
    """A frame as a producer sends it."""
    meta: Document = {"v": VERSION, "camera": frame.camera, "ts_ns": frame.ts_ns, "codec": frame.codec}
    if frame.id is not None:
        meta["id"] = frame.id
    if frame.shape is not None:
        meta["shape"] = list(frame.shape)
    if frame.pixel_format is not None:
        meta["pixel_format"] = frame.pixel_format
    if frame.tags:
        meta["tags"] = dict(frame.tags)
    return {META: _pack(meta), DATA: frame.data}


def decode_frame(meta: bytes, data: bytes | None) -> Frame:
    """The frame in an entry's two fields; `data` None where the field is missing.

    Raises ContractError naming the key, what was expected and what was found.
    """
    given = _plainly(meta) or _strictly(meta)
    if data is None:
        raise ContractError("data: the entry has no such field; send the picture's bytes in it")
    return Frame(
        camera=given.camera,
        ts_ns=given.ts_ns,
        codec=given.codec,
        data=data,
        id=None if given.id is UNSET else given.id,
        shape=None if given.shape is UNSET else given.shape,
        pixel_format=_pixel_format(given),
        tags={} if given.tags is UNSET else given.tags,
    )


def encode_result(result: Result) -> Fields:
    """A result as the engine publishes it, with its pictures where it has any."""
    meta: Document = {
        "v": VERSION,
        "frame": result.frame,
        "id": result.id,
        "camera": result.camera,
        "ts_ns": result.ts_ns,
        "tags": dict(result.tags),
        "status": result.status,
        "pred_score": result.pred_score,
        "pred_label": result.pred_label,
        "decision": result.decision,
        "raw_score": result.raw_score,
        "scores": dict(result.scores),
        "regions": [{"bbox": list(r.bbox), "area": r.area, "score": r.score} for r in result.regions],
        "model": result.model,
        "timing_ms": dict(result.timing_ms),
    }
    if (drift := result.drift) is not None:
        meta["drift"] = {"signals": list(drift.signals), "false_alarm_rate": drift.false_alarm_rate}
    return {META: _pack(meta), **encode_pictures(result.anomaly_map, result.pred_mask)}


def encode_pictures(anomaly_map: npt.NDArray[np.uint16] | None, pred_mask: npt.NDArray[np.uint8] | None) -> Fields:
    """The PNG fields of a result: a (H, W) uint16 map and a (H, W) uint8 mask, each where given."""
    fields: Fields = {}
    if anomaly_map is not None:
        fields[ANOMALY_MAP] = _png(anomaly_map, _MAP_SETTINGS)
    if pred_mask is not None:
        fields[PRED_MASK] = _png(pred_mask, _MASK_SETTINGS)
    return fields


def decode_result(fields: Mapping[bytes, bytes]) -> Result:
    """A result entry as redis-py returns its fields; raises ContractError where it is none."""
    meta = _unpack(fields.get(META.encode(), b""))
    if meta.get("v") != VERSION:
        raise ContractError(f"result: `v` is {meta.get('v')!r}, this engine reads {VERSION}; upgrade the reader")
    try:
        return Result(
            **{key: meta[key] for key in _PLAIN_RESULT_KEYS},
            regions=tuple(Region(tuple(r["bbox"]), r["area"], r["score"]) for r in meta["regions"]),
            anomaly_map=_picture(fields.get(ANOMALY_MAP.encode())),
            pred_mask=_picture(fields.get(PRED_MASK.encode())),
            drift=_drift(meta.get("drift")),
        )
    except (KeyError, TypeError) as error:
        raise ContractError(f"result: {error!r} in {META}; is this an engine's results stream?") from None


def _drift(found: Document | None) -> Drift | None:
    return None if found is None else Drift(tuple(found["signals"]), found["false_alarm_rate"])


def encode_dead(letter: DeadLetter, *, frame: str, line: str, meta: bytes | None, data: bytes | None) -> Fields:
    """A dead letter as the engine publishes it: the frame's own fields, empty where gone, and `error`."""
    error = {
        "frame": frame,
        "line": line,
        "model": letter.model,
        "type": letter.type,
        "message": letter.message,
        "deliveries": letter.deliveries,
        "consumer": letter.consumer,
        "ts_ns": letter.ts_ns,
    }
    return {META: meta or b"", DATA: data or b"", ERROR: _pack(error)}


def decode_dead(fields: Mapping[bytes, bytes]) -> DeadEntry:
    """A dead entry as redis-py returns its fields; raises ContractError where it is none."""
    error = _unpack(fields.get(ERROR.encode(), b""), where=ERROR)
    try:
        letter = DeadLetter(**{key: error[key] for key in _LETTER_KEYS})
        meta, data = fields.get(META.encode(), b""), fields.get(DATA.encode(), b"")
        return DeadEntry(frame=error["frame"], line=error["line"], letter=letter, meta=meta, data=data)
    except KeyError as missing:
        raise ContractError(f"dead letter: {missing} is missing in {ERROR}; is this an engine's dead stream?") from None


def _plainly(meta: bytes) -> _FrameMeta | None:
    """A valid `meta` of nothing but known keys and no tags, which nearly all are; None for a closer look.

    The decoder passes over duplicates and what unknown keys hold, so as many keys must be found as the map counts.
    """
    try:
        given = _FRAME_DECODER.decode(meta)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    optional = (given.id, given.shape, given.pixel_format)
    found = 4 + sum(value is not UNSET for value in optional)
    return given if meta[0] == 0x80 | found and given.tags is UNSET else None


def _strictly(meta: bytes) -> _FrameMeta:
    """Any valid `meta`, looked at key by key; raises ContractError for what is none."""
    document = _unpack(meta)
    if "v" in document and document["v"] != VERSION:
        raise ContractError(f"meta: `v`: this engine reads {VERSION}, got {str(document['v'])[:32]!r}; upgrade it")
    codec = document.get("codec")
    if isinstance(codec, str) and codec not in get_args(Codec):
        raise ContractError(f"meta: `codec`: expected one of {', '.join(get_args(Codec))}, got {codec[:32]!r}")
    try:
        given = msgspec.convert({key: document[key] for key in _FRAME_KEYS if key in document}, _FrameMeta)
    except msgspec.ValidationError as error:
        raise ContractError(f"meta: {error}; docs/wire.md lists the keys") from None
    if given.tags is not UNSET and len(meta) > MAX_TAGS_BYTES:
        _check_tags_size(given.tags)
    return given


def _pack(document: Document) -> bytes:
    packed: bytes = msgpack.packb(document)
    return packed


def _unpack(packed: bytes, *, where: str = META) -> Document:
    """The msgpack map in a field; raises ContractError for anything else, anywhere inside it."""
    try:
        document = msgpack.unpackb(
            packed,
            strict_map_key=False,
            object_pairs_hook=_plain_map,
            list_hook=_plain_list,
            ext_hook=_refuse_extension,
        )
    except ContractError as error:
        raise ContractError(f"{where}: {error}") from None
    except msgpack.ExtraData as error:
        raise ContractError(f"{where}: {len(error.extra)} bytes trail the msgpack map; send the map alone") from None
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ContractError(f"{where}: not valid msgpack ({str(error) or type(error).__name__}); pack a map") from None
    if not isinstance(document, dict):
        raise ContractError(f"{where}: expected a msgpack map, got {_kind(document)}")
    return document


def _plain_map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ContractError(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    if msgpack.Timestamp in map(type, document.values()) or msgpack.Timestamp in map(type, document):
        _refuse_extension(-1, b"")
    return document


def _plain_list(values: list[Any]) -> list[Any]:
    if msgpack.Timestamp in map(type, values):  # the one extension type that the library decodes without asking
        _refuse_extension(-1, b"")
    return values


def _refuse_extension(code: int, _: bytes) -> Any:
    raise ContractError(f"extension type {code}; only plain msgpack types are allowed")


def _pixel_format(given: _FrameMeta) -> PixelFormat | None:
    """The declared format; None where the codec is not `raw`, which is the only one that it says anything about."""
    if given.codec != "raw":
        return None
    if given.shape is UNSET or given.pixel_format is UNSET:
        missing = "shape" if given.shape is UNSET else "pixel_format"
        raise ContractError(f"meta: `{missing}` is missing; codec 'raw' needs it")
    name = given.pixel_format
    known = next((known for known in _CHANNELS if known == name), None)
    if known is None:
        raise ContractError(f"meta: `pixel_format`: expected one of {', '.join(_CHANNELS)}, got {name[:32]!r}")
    if given.shape[2] != _CHANNELS[known]:
        raise ContractError(f"meta: `shape`: {known} has {_CHANNELS[known]} channel(s), got {given.shape[2]}")
    return known


def _check_tags_size(tags: dict[str, Tag]) -> None:
    if (size := len(_pack(tags))) > MAX_TAGS_BYTES:
        raise ContractError(f"meta: `tags`: expected at most {MAX_TAGS_BYTES} bytes packed, got {size}")


def _kind(value: object) -> str:
    return "nil" if value is None else type(value).__name__


def _png(picture: npt.NDArray[np.uint16] | npt.NDArray[np.uint8], settings: Sequence[int]) -> bytes:
    """Fast rather than small: the settings were chosen by timing, several times faster than the defaults."""
    return cv2.imencode(".png", picture, settings)[1].tobytes()


def _picture(png: bytes | None) -> Any:
    """(H, W) pixels of a PNG field as they were written, 8 or 16 bits."""
    return None if png is None else cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
