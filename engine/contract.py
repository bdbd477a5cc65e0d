"""Names, shapes and scales that trainers write and the runtime reads. Nothing here does I/O.

The bundle's manifest (`bundle.json`) is the `Manifest` struct; the calibrated scale is `Scale`; the Triton and ONNX
tensor names are the constants. Both sides import them from here, so that they cannot drift apart.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

SCHEMA_VERSION: Literal[1] = 1
MAX_SIDE_PX = 16_384
MANIFEST_NAME = "bundle.json"

# ONNX graph: uint8 RGB pictures in, either dense features or a distance grid out; outputs are found by name.
INPUT_NAME = "image"  # (N, H, W, 3) uint8 RGB
FEATURES_NAME = "features"  # (N, C, h, w) float32
POSITIONS_NAME = "positions"  # (N, h, w, 2) float32, where features are aligned: see engine.alignment
GRID_NAME = "grid"  # (N, h, w) float32 distances
SCORE_NAME = "score"  # (N,) float32 raw scores, where the picture's is not the maximum of its smoothed map
COMMON_PREFIX = "common."  # (N, ...) float32: what several networks of an ensemble compute alike, see `Member.network`

# Triton (KServe v2): the whole bundle is the model DETECTOR, each member the model of its method's name.
DETECTOR_MODEL = "detector"
TRITON_IMAGE = "IMAGE"  # (N, H, W, 3) uint8 RGB, H and W the bundle's
RAW_SCORE = "raw_score"  # (N, 1) float32
RAW_MAP = "raw_map"  # (N, H, W) float32, of members
PRED_SCORE = "pred_score"  # (N, 1) float32, calibrated
PRED_LABEL = "pred_label"  # (N, 1) bool
ANOMALY_MAP = "anomaly_map"  # (N, H, W) float32, calibrated
PRED_MASK = "pred_mask"  # (N, H, W) uint8, 0 or 255

Precision = Literal["fp32", "fp16", "int8"]
Rule = Literal["mean", "max"]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z")]
Side = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE_PX)]
Real = TypeVar("Real", np.float32, np.float64)
NAME_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of everything in a manifest: immutable, strict, refuses unknown keys."""


class Scale(Struct, frozen=True):
    """A strictly increasing map from a raw score to (0, 1) with `threshold` at 0.5.

    calibrated(r) = (1 + x / (1 + |x|)) / 2 with x = (r - threshold) / width. The algebraic sigmoid keeps its slope far
    from the threshold, where a logistic one saturates and ties scores, so AUROC is the same before and after. Trainers
    choose `width` = (threshold - median of good) / 4, which puts the median good picture at 0.1.
    """

    threshold: float
    width: Annotated[float, msgspec.Meta(gt=0)]

    def calibrated(self, raw: npt.NDArray[Real]) -> npt.NDArray[Real]:
        """Raw scores of any shape -> scores in (0, 1) of the same shape and dtype."""
        x = (raw - self.threshold) / self.width
        scores: npt.NDArray[Real] = 0.5 + 0.5 * x / (1 + np.abs(x))
        return scores

    def raw(self, calibrated: float) -> float:
        """The raw score of a calibrated one in (0, 1): the inverse of `calibrated`."""
        x = 2 * calibrated - 1
        return self.threshold + self.width * x / (1 - abs(x))


class Tail(Struct, frozen=True):
    """A strictly increasing map from a raw score to its surprise: -log of the share of good ones that score as high.

    Between the `knots` (raw values, ascending) it is the cubic of their `surprise` and `slopes` (monotone Hermite), so
    it has no steps where the good scores that it rests on lie apart. Below the first knot it falls towards 0. Above the
    last it is y + shape * log(1 + rate * (r - knot) / shape): a generalised Pareto tail of index 1 / shape, which is
    the predictive law of an exponential tail known from `shape` excesses (`trainers.calibration.thresholds`).
    """

    knots: Annotated[tuple[float, ...], msgspec.Meta(min_length=2, max_length=256)]
    surprise: tuple[float, ...]
    slopes: tuple[float, ...]
    rate: Annotated[float, msgspec.Meta(gt=0)]
    shape: Annotated[float, msgspec.Meta(gt=0)]

    def __post_init__(self) -> None:
        if not len(self.knots) == len(self.surprise) == len(self.slopes):
            raise ValueError("tail: knots, surprise and slopes must be equally many")
        if min(self.surprise) <= 0 or min(np.diff(self.knots)) <= 0 or min(np.diff(self.surprise)) <= 0:
            raise ValueError("tail: knots and surprise must ascend, and surprise be positive")

    def of(self, raw: npt.NDArray[Real]) -> npt.NDArray[Real]:
        """Raw scores of any shape, (n,) or more -> their surprise, of the same shape and dtype."""
        knots, surprise, slopes = (np.asarray(v, raw.dtype) for v in (self.knots, self.surprise, self.slopes))
        step = np.diff(knots)
        chord = np.diff(surprise) / step
        second = (3 * chord - 2 * slopes[:-1] - slopes[1:]) / step  # coefficients of the powers of x - knot
        third = (slopes[:-1] + slopes[1:] - 2 * chord) / step**2
        u = np.clip(raw, knots[0], knots[-1])
        pieces = np.zeros(u.shape, np.uint8)
        for knot in knots[1:-1]:  # maps have many values and few knots: faster than a search
            pieces += u >= knot
        i = pieces.astype(np.intp)
        u -= knots.take(i)
        found = third.take(i)
        for coefficient in (second, slopes, surprise):
            found *= u
            found += coefficient.take(i)
        above, below = raw > knots[-1], raw < knots[0]
        if above.any():
            found[above] = surprise[-1] + self.shape * np.log1p(self.rate * (raw[above] - knots[-1]) / self.shape)
        if below.any():
            found[below] = surprise[0] / (1 + chord[0] / surprise[0] * (knots[0] - raw[below]))
        result: npt.NDArray[Real] = found.astype(raw.dtype, copy=False)
        return result


class Estimate(Struct, frozen=True):
    """How one threshold was obtained: the calibration card.

    `how` is `split-conformal` (a guarantee for exchangeable pictures), `k-fold` (empirical quantile over held-out
    folds: an estimate) or `tail-fit` (fitted extreme-value tail over held-out folds: an estimate).
    `interval` is the 95 % interval of the false-alarm rate that a new line of good pictures will show.
    """

    target_fpr: float
    how: Literal["split-conformal", "k-fold", "tail-fit"]
    guarantee: bool
    n_images: int
    folds: int
    interval: tuple[float, float]
    note: str


class Calibration(Struct, frozen=True):
    """Thresholds and scales of one executable precision, from good pictures only.

    `review` is an optional second, lower image threshold (raw): between it and the reject threshold a frame's decision
    is `review`.
    """

    image: Scale
    pixel: Scale
    image_estimate: Estimate
    pixel_estimate: Estimate
    review: float | None = None

    @property
    def not_good_from(self) -> float:
        """The raw image score from which a picture is not good: the lower one of the two thresholds."""
        reject = self.image.threshold
        return reject if self.review is None else min(reject, self.review)


class File(Struct, frozen=True):
    """A file of the bundle: `path` relative to its folder."""

    path: str
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
    bytes: int


class Executable(Struct, frozen=True):
    """One precision of the model: its network, its Gaussian and what they were calibrated to.

    `network` is an ONNX file; `gaussian` a safetensors file of the packed per-position model
    (`kernels.Gaussian`), absent where the network itself gives the distance grid. `data` lists files that the network
    refers to (ONNX external data). `held_out` is a safetensors file of what the calibration rests on, see
    `trainers.calibration.record`; serving does not read it, an ensemble with this model is calibrated from it.
    `reference` is one of what good pictures look like and score, see `engine.drift.reference`; older bundles have none.
    """

    network: File
    calibration: Calibration
    gaussian: File | None = None
    data: tuple[File, ...] = ()
    held_out: File | None = None
    reference: File | None = None


class Member(Struct, frozen=True):
    """One model of an ensemble: a bundle in a folder of its own within the ensemble's, named by its manifest's file.

    `image` and `pixel` put its raw scores and its raw map on the scale that all members share; `weight` is its share
    in a mean; `cost_ms` what one picture took by itself where the ensemble was made.

    Where it begins like other members it runs `network` in the ensemble, an ONNX file in the place of its own: this one
    gives tensors named COMMON_PREFIX... of the same pictures to members after it, or takes them from members before it.
    """

    name: Name
    manifest: File
    image: Tail
    pixel: Tail
    weight: Annotated[float, msgspec.Meta(gt=0)]
    cost_ms: Annotated[float, msgspec.Meta(gt=0)]
    network: File | None = None


class Ensemble(Struct, frozen=True):
    """One precision of several models as one: the cheapest member first.

    Its raw score is the weighted `mean`, or the `max`, of its members' surprises, its raw map likewise;
    `calibration` is of these. `frames` is a safetensors file of what the cascade's limit rests on, see
    `engine.cascade`. `rest_ms` is what the members after the first added to a picture where the ensemble was made, with
    what they have in common computed once; older ensembles do not tell.
    """

    members: Annotated[tuple[Member, ...], msgspec.Meta(min_length=2)]
    rule: Rule
    calibration: Calibration
    frames: File
    rest_ms: Annotated[float, msgspec.Meta(ge=0)] | None = None

    @property
    def first_ms(self) -> float:
        """What the first member takes of a picture."""
        return self.members[0].cost_ms

    @property
    def others_ms(self) -> float:
        """What the members after it add."""
        return sum(member.cost_ms for member in self.members[1:]) if self.rest_ms is None else self.rest_ms


class Input(Struct, frozen=True):
    """The picture a model takes: RGB, resized to (height, width) px; normalisation is inside the graph."""

    height: Side
    width: Side
    colour: Literal["RGB"] = "RGB"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of 0..255 values, for the record
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


class Tiling(Struct, frozen=True):
    """How a picture of input size is cut for a network that takes squares of `side_px`: see `engine.tiling`.

    Neighbours share at least the share `overlap` of a tile's side; `cell_px` is the side of a cell of the grid.
    """

    side_px: Side
    cell_px: Side
    overlap: Annotated[float, msgspec.Meta(ge=0, lt=1)]

    def __post_init__(self) -> None:
        if self.side_px % self.cell_px:
            raise ValueError(f"tiling: expected cells that divide a tile of {self.side_px} px, got {self.cell_px} px")


class TrainingData(Struct, frozen=True):
    """What the model was trained on."""

    path: str
    n_good: int
    sha256: str  # over the sorted (name, content hash) pairs
    height_range: tuple[int, int]
    width_range: tuple[int, int]


class Manifest(Struct, frozen=True):
    """The content of `bundle.json`: `executables` of one model, or `ensembles` of several; one of the two is empty.

    `grid` has the rows and columns of the map's distances; `smoothing_sigma_px` is the standard deviation of the
    Gaussian that smooths the map at input size. With a `tiling` the network sees the picture in tiles, and `grid` is
    that of the whole picture, in cells of `tiling.cell_px`; without, it takes the picture as a whole. `settings` are
    the trainer's, `report` what training measured (for people), `versions` of the libraries that made it. `weights` is
    a safetensors file of the network's weights as its method names them, where that can make use of them again; serving
    does not read it.
    """

    name: Name
    version: Name
    method: str
    input: Input
    grid: tuple[Side, Side]
    smoothing_sigma_px: Annotated[float, msgspec.Meta(ge=0)]
    executables: dict[Precision, Executable]
    training: TrainingData
    settings: dict[str, str | int | float | bool | None]
    report: dict[str, float | int | str | None]
    versions: dict[str, str]
    ensembles: dict[Precision, Ensemble] = {}
    schema_version: Literal[1] = SCHEMA_VERSION
    weights: File | None = None
    tiling: Tiling | None = None

    @property
    def model(self) -> str:
        """NAME@VERSION, as results carry it."""
        return f"{self.name}@{self.version}"
