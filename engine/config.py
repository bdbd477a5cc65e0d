"""`engine.toml`: one frozen struct per section, one loader, unknown keys refused with their path."""

from __future__ import annotations

import math
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from engine.contract import Name
from engine.errors import ConfigError
from engine.polygon import Points, fault

Positive = Annotated[int, msgspec.Meta(ge=1)]
NonNegative = Annotated[int, msgspec.Meta(ge=0)]
Score = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Bound = Annotated[float, msgspec.Meta(gt=0, le=0.5)]
CascadeSetting = Literal["off", "auto"] | Bound
Polygon = Annotated[Points, msgspec.Meta(max_length=1000)]
When = Literal["always", "anomalous", "never"]
Backend = Literal["auto", "onnx", "openvino", "tensorrt", "triton"]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of a section: immutable and strict."""


class Redis(Section, frozen=True):
    """Where the streams are. `password_file` is read at start; REDIS_PASSWORD wins; neither is ever logged."""

    url: str = "redis://127.0.0.1:6379/0"
    prefix: Name = "engine"
    cluster: Literal["auto", "on", "off"] = "auto"
    password_file: str | None = None


class LineRegion(Section, frozen=True):
    """The part of a camera's pictures that counts; without `camera`, of every camera that has no region of its own.

    A pixel counts where it lies in any `include` polygon (in none: everywhere), in no `ignore` polygon, and where
    `mask`, a picture that is stretched to the frame's size, is white. Polygons are (x, y) corners, in pixels of the
    frame or as shares of its width and height.
    """

    camera: Name | None = None
    unit: Literal["px", "share"] = "px"
    include: tuple[Polygon, ...] = ()
    ignore: tuple[Polygon, ...] = ()
    mask: str | None = None

    def __post_init__(self) -> None:
        if not (self.include or self.ignore or self.mask):
            raise ValueError("expected `include`, `ignore` or `mask`")
        most = 1.0 if self.unit == "share" else math.inf
        for key, polygons in (("include", self.include), ("ignore", self.ignore)):
            for i, points in enumerate(polygons):
                if (wrong := fault(points, most)) is not None:
                    raise ValueError(f"{key}[{i}]: {wrong}")


class Line(Section, frozen=True):
    """One line of cameras and the bundle that watches it.

    `review` and `reject` take the place of the bundle's thresholds; they are scores on its calibrated scale. `region`
    holds the parts of the cameras' pictures that count, one of each camera at most.
    """

    name: Name
    bundle: str
    review: Score | None = None
    reject: Score | None = None
    region: tuple[LineRegion, ...] = ()

    def __post_init__(self) -> None:
        cameras = [region.camera for region in self.region]
        if doubled := [camera for camera in cameras if cameras.count(camera) > 1]:
            raise ValueError(f"region: {doubled[0] or 'the one without a camera'} stands twice; put polygons into one")


class Batch(Section, frozen=True):
    """Size-or-deadline batching; the deadline counts from the first frame of a batch."""

    max_size: Positive = 8
    max_wait_ms: NonNegative = 5


class Delivery(Section, frozen=True):
    """The delivery promise and its limits."""

    claim_idle_ms: Positive = 30_000
    max_deliveries: Positive = 5
    max_age_ms: NonNegative = 0
    max_frame_bytes: Positive = 33_554_432
    max_pixels: Positive = 67_108_864
    keep_frames: bool = False
    frames_maxlen: NonNegative = 0


class Publish(Section, frozen=True):
    """What results carry, and how long streams are kept."""

    mask: When = "anomalous"
    map: When = "never"
    results_maxlen: NonNegative = 100_000
    dead_maxlen: NonNegative = 10_000


class Runtime(Section, frozen=True):
    """What executes the model; `cascade` is the bound on the disagreement with the full ensemble, `auto` 0.2 %."""

    backend: Backend = "auto"
    precision: Literal["auto", "fp32", "int8", "fp16"] = "auto"
    threads: NonNegative = 0
    reload_ms: NonNegative = 1_000
    cascade: CascadeSetting = "auto"


class Triton(Section, frozen=True):
    """The tritonserver of `runtime.backend = "triton"`.

    `fallback` is the in-process backend that takes over while the server is away; with `off` frames wait for it.
    """

    url: str = "127.0.0.1:8001"
    shared_memory: Literal["auto", "system", "cuda", "off"] = "auto"
    in_flight: Positive = 3
    timeout_ms: Positive = 10_000
    fallback: Literal["off", "auto", "onnx", "openvino", "tensorrt"] = "off"


class Drift(Section, frozen=True):
    """Whether lines are compared with the training, see `engine.drift`.

    `window` is how many frames of a camera are compared; `false_signals_per_million` bounds the drifts that good frames
    like the training's begin by chance.
    """

    enabled: bool = True
    window: Annotated[int, msgspec.Meta(ge=32, le=4096)] = 256
    false_signals_per_million: Annotated[float, msgspec.Meta(ge=1e-3, le=1e3)] = 1.0


class Metrics(Section, frozen=True):
    """Prometheus text, /healthz and /readyz on http://host:port; port 0 is off."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0


class Config(Section, frozen=True):
    """The whole of `engine.toml`."""

    line: Annotated[tuple[Line, ...], msgspec.Meta(min_length=1)]
    redis: Redis = Redis()
    batch: Batch = Batch()
    delivery: Delivery = Delivery()
    publish: Publish = Publish()
    runtime: Runtime = Runtime()
    triton: Triton = Triton()
    drift: Drift = Drift()
    metrics: Metrics = Metrics()


def load(path: str | Path) -> Config:
    """Read `engine.toml`; relative paths of bundles and masks count from the file's folder.

    Raises ConfigError with the file, the key's path, what was expected and what was found.
    """
    return parse(read(path), where=Path(path))


def read(path: str | Path) -> dict[str, Any]:
    """The file as a document that was not checked yet; raises ConfigError where it is missing or no TOML."""
    file = Path(path)
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); give --config FILE") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None


def parse(document: dict[str, Any], *, where: Path) -> Config:
    """Check a parsed document; `where` names it in errors and anchors relative paths of bundles and masks."""
    try:
        config = msgspec.convert(document, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_explain(error)}; docs/operating.md lists every key") from None
    names = [line.name for line in config.line]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{where}: line names must differ, but {', '.join(doubled)} stands twice")
    base = where.parent
    return msgspec.structs.replace(config, line=tuple(_anchored(line, base) for line in config.line))


def _anchored(line: Line, base: Path) -> Line:
    """With its relative paths counted from a folder."""
    regions = tuple(
        region if region.mask is None else msgspec.structs.replace(region, mask=os.path.join(base, region.mask))
        for region in line.region
    )
    return msgspec.structs.replace(line, bundle=os.path.join(base, line.bundle), region=regions)


def cascade_setting(text: str) -> CascadeSetting:
    """`off`, `auto` or a bound, as a flag gives it; raises ConfigError for anything else."""
    try:
        setting: CascadeSetting = msgspec.convert(text if text in ("off", "auto") else float(text), CascadeSetting)
    except (ValueError, msgspec.ValidationError):
        raise ConfigError(f"--cascade {text}: expected off, auto or a bound in (0, 0.5], such as 0.002") from None
    return setting


def _explain(error: msgspec.ValidationError) -> str:
    """`Expected int, got str - at $.batch.max_size` -> `batch.max_size: expected int, got str`."""
    message, _, path = str(error).partition(" - at `$.")
    key = path.rstrip("`")
    if not key:
        return message
    if message.startswith("Invalid enum value"):
        message = f"expected one of {', '.join(_choices(key))}, got {message.rpartition(' ')[2]}"
    return f"{key}: {message[:1].lower()}{message[1:]}"


def _choices(key: str) -> tuple[str, ...]:
    """The words that a key such as `line[0].region[1].unit` may be set to."""
    kind: Any = Config
    for part in re.sub(r"\[\d+\]", "", key).split("."):
        kind = get_type_hints(kind)[part]
        if get_origin(kind) is tuple:
            kind = get_args(kind)[0]
    words = [word for part in get_args(kind) for word in get_args(part) or (part,)]
    return tuple(word if isinstance(word, str) else "a number" for word in words)
