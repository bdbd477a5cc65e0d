"""The wire contract in both directions: frames, results and dead letters as the fields of stream entries.

Reading is strict: what breaks the contract is refused with a ContractError that names the key, so that a broken
producer is found on its first frame. Field names and meanings are those of docs/wire.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard, get_args

import cv2
import msgpack
import numpy as np
import numpy.typing as npt

from engine.contract import NAME_PATTERN
from engine.errors import ContractError
from engine.types import Codec, DeadLetter, Frame, PixelFormat, Region, Result, Tag

VERSION: Final = 1
META: Final = "meta"
DATA: Final = "data"
ERROR: Final = "error"
ANOMALY_MAP: Final = "anomaly_map"
PRED_MASK: Final = "pred_mask"
MAX_ID_CHARS: Final = 128
MAX_TAGS_BYTES: Final = 4096

_CODECS = frozenset(get_args(Codec))
_CHANNELS: Mapping[PixelFormat, int] = {"RGB8": 3, "BGR8": 3, "Mono8": 1}
_PLAIN_RESULT_KEYS: Final = [
    *("frame", "id", "camera", "ts_ns", "tags", "status", "pred_score", "pred_label"),
    *("decision", "raw_score", "scores", "model", "timing_ms"),
]
_LETTER_KEYS: Final = ("type", "message", "model", "deliveries", "consumer", "ts_ns")
_PNG_SETTINGS = (cv2.IMWRITE_PNG_COMPRESSION, 1)

Fields = dict[str, bytes]
Document = dict[str, Any]


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
    document = _unpack(meta)
    _check_version(document)
    if data is None:
        raise ContractError("data: the entry has no such field; send the picture's bytes in it")
    codec = _codec(document)
    shape = _shape(document)
    pixel_format = _pixel_format(document, required=codec == "raw")
    if codec == "raw":
        _check_raw(shape, pixel_format)
    return Frame(
        camera=_camera(document),
        ts_ns=_int(document, "ts_ns"),
        codec=codec,
        data=data,
        id=_id(document),
        shape=shape,
        pixel_format=pixel_format,
        tags=_tags(document, len(meta)),
    )


def encode_result(result: Result) -> Fields:
    """A result as the engine publishes it, with its pictures where it has any."""
    meta = {
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
    return {META: _pack(meta), **encode_pictures(result.anomaly_map, result.pred_mask)}


def encode_pictures(anomaly_map: npt.NDArray[np.uint16] | None, pred_mask: npt.NDArray[np.uint8] | None) -> Fields:
    """The PNG fields of a result: a (H, W) uint16 map and a (H, W) uint8 mask, each where given."""
    fields: Fields = {}
    if anomaly_map is not None:
        fields[ANOMALY_MAP] = _png(anomaly_map)
    if pred_mask is not None:
        fields[PRED_MASK] = _png(pred_mask)
    return fields


def decode_result(fields: Mapping[bytes, bytes]) -> Result:
    """A result entry as redis-py returns its fields; raises ContractError where it is none."""
    meta = _unpack(fields.get(META.encode(), b""))
    _check_version(meta)
    try:
        return Result(
            **{key: meta[key] for key in _PLAIN_RESULT_KEYS},
            regions=tuple(Region(tuple(r["bbox"]), r["area"], r["score"]) for r in meta["regions"]),
            anomaly_map=_picture(fields.get(ANOMALY_MAP.encode())),
            pred_mask=_picture(fields.get(PRED_MASK.encode())),
        )
    except (KeyError, TypeError) as error:
        raise ContractError(f"result: {error!r} in {META}; is this an engine's results stream?") from None


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
        raise ContractError(f"{where}: not valid msgpack ({error or type(error).__name__}); pack a map") from None
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


def _check_version(document: Document) -> None:
    if _int(document, "v") != VERSION:
        raise ContractError(f"meta: `v` is {document['v']}, this engine reads {VERSION}; upgrade the engine")


def _codec(document: Document) -> Codec:
    codec = _str(document, "codec")
    if not _is_codec(codec):
        raise ContractError(f"meta: `codec`: expected one of {', '.join(sorted(_CODECS))}, got {codec[:32]!r}")
    return codec


def _is_codec(codec: str) -> TypeGuard[Codec]:
    return codec in _CODECS


def _camera(document: Document) -> str:
    camera = _str(document, "camera")
    if not NAME_PATTERN.fullmatch(camera):
        raise ContractError(f"meta: `camera`: expected 1 to 64 of [A-Za-z0-9._-], got {camera[:80]!r}")
    return camera


def _id(document: Document) -> str | None:
    if "id" not in document:
        return None
    identity = _str(document, "id")
    if len(identity) > MAX_ID_CHARS:
        raise ContractError(f"meta: `id`: expected at most {MAX_ID_CHARS} characters, got {len(identity)}")
    return identity


def _shape(document: Document) -> tuple[int, int, int] | None:
    if "shape" not in document:
        return None
    shape = document["shape"]
    if not isinstance(shape, list) or len(shape) != 3 or any(type(side) is not int or side < 0 for side in shape):
        raise ContractError(f"meta: `shape`: expected [height, width, channels], got {str(shape)[:80]}")
    return (shape[0], shape[1], shape[2])


def _pixel_format(document: Document, *, required: bool) -> PixelFormat | None:
    """The declared format; None where there is none of ours and the codec needs none."""
    if "pixel_format" not in document and not required:
        return None
    name = _str(document, "pixel_format")
    known = next((known for known in _CHANNELS if known == name), None)
    if required and known is None:
        raise ContractError(f"meta: `pixel_format`: expected one of {', '.join(_CHANNELS)}, got {name[:32]!r}")
    return known


def _check_raw(shape: tuple[int, int, int] | None, pixel_format: PixelFormat | None) -> None:
    if shape is None:
        raise ContractError("meta: `shape` is missing; codec 'raw' needs it")
    if pixel_format is not None and shape[2] != _CHANNELS[pixel_format]:
        raise ContractError(f"meta: `shape`: {pixel_format} has {_CHANNELS[pixel_format]} channel(s), got {shape[2]}")


def _tags(document: Document, meta_bytes: int) -> dict[str, Tag]:
    tags = document.get("tags", {})
    if not isinstance(tags, dict):
        raise ContractError(f"meta: `tags`: expected a map, got {_kind(tags)}")
    for key, value in tags.items():
        if type(key) is not str or type(value) not in (str, int, float, bool):
            raise ContractError(f"meta: `tags`: expected str to str, int, float or bool, got {_kind(value)} at {key!r}")
    if meta_bytes > MAX_TAGS_BYTES and len(_pack(tags)) > MAX_TAGS_BYTES:
        raise ContractError(f"meta: `tags`: expected at most {MAX_TAGS_BYTES} bytes packed, got {len(_pack(tags))}")
    return tags


def _int(document: Document, key: str) -> int:
    value = _required(document, key)
    if type(value) is not int:  # a bool is an int to isinstance
        raise ContractError(f"meta: `{key}`: expected int, got {_kind(value)}")
    return value


def _str(document: Document, key: str) -> str:
    value = _required(document, key)
    if type(value) is not str:
        raise ContractError(f"meta: `{key}`: expected str, got {_kind(value)}")
    return value


def _required(document: Document, key: str) -> object:
    if key not in document:
        raise ContractError(f"meta: `{key}` is missing")
    value: object = document[key]
    return value


def _kind(value: object) -> str:
    return "nil" if value is None else type(value).__name__


def _png(picture: npt.NDArray[np.uint16] | npt.NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", picture, _PNG_SETTINGS)[1].tobytes()


def _picture(png: bytes | None) -> Any:
    """(H, W) pixels of a PNG field as they were written, 8 or 16 bits."""
    return None if png is None else cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
