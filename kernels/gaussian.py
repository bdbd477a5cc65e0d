"""A Gaussian per position, factorised for evaluation.

Letters: C channels, h w grid, P = h * w positions, R rank.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kernels import files
from kernels.errors import ShapeError
from kernels.layout import Factorisation, packed_values, row_values
from kernels.storage import DTYPES, F32, F64, Storage, Stored, check, decode, encode


@dataclass(frozen=True, slots=True)
class Truncation:
    """What a rank below the full one costs, as relative error of d^2.

    `bound` holds for every picture at every position; `rms` is the root mean square over pictures distributed as the
    training ones, at the worst position; `explained` is the kept share of the variance.
    """

    bound: float
    rms: float
    explained: float


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Gaussian:
    """Mean and factor of Sigma = S + diag(eps) at every position of a grid.

    `mean` is (h, w, C). `factor` is, packed as `layout` says, either the inverse Cholesky factor, (P, packed values),
    or U of the low-rank form, (P, R, row values), which comes with `scale` (C,) = 1 / sqrt(eps), `weights` (P, R) and
    `tail` (P,):  d^2 = sum_k weights_k z_k^2 + tail |y - U z|^2,  y = scale * (x - mean),  z = U^T y.
    `eps` is () or (C,), in squared feature units; `samples` the number of training pictures. Arrays are C-contiguous.
    Raises ShapeError when they do not fit each other.
    """

    mean: F32
    factor: Stored
    storage: Storage
    eps: F64
    samples: int
    scale: F32 | None = None
    weights: F32 | None = None
    tail: F32 | None = None
    truncation: Truncation | None = None

    def __post_init__(self) -> None:
        if self.mean.ndim != 3 or 0 in self.mean.shape:
            raise ShapeError(f"Gaussian.mean: expected (h, w, C), got {self.mean.shape}")
        positions, channels = self.positions, self.channels
        _expect("eps", self.eps, np.float64, self.eps.shape if self.eps.shape == () else (channels,))
        _expect("mean", self.mean, np.float32, self.mean.shape)
        if self.factorisation == "triangular":
            _expect("factor", self.factor, DTYPES[check(self.storage)], (positions, packed_values(channels)))
            return
        if self.factor.ndim != 3:
            raise ShapeError(f"Gaussian.factor: expected (P, R, row values), got {self.factor.shape}")
        rank = self.rank
        _expect("factor", self.factor, DTYPES[check(self.storage)], (positions, rank, row_values(channels)))
        _expect("scale", self.scale, np.float32, (channels,))
        _expect("weights", self.weights, np.float32, (positions, rank))
        _expect("tail", self.tail, np.float32, (positions,))

    @property
    def channels(self) -> int:
        """C."""
        return int(self.mean.shape[2])

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w)."""
        return self.mean.shape[0], self.mean.shape[1]

    @property
    def positions(self) -> int:
        """P = h * w."""
        return int(self.mean.shape[0] * self.mean.shape[1])

    @property
    def factorisation(self) -> Factorisation:
        """Which of the two forms the factor has."""
        return "triangular" if self.weights is None else "low_rank"

    @property
    def rank(self) -> int:
        """R: the eigenpairs kept; C for a triangular factor."""
        return self.channels if self.weights is None else int(self.factor.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays that the map reads."""
        arrays = (self.mean, self.factor, self.scale, self.weights, self.tail)
        return sum(array.nbytes for array in arrays if array is not None)

    def __repr__(self) -> str:
        """One line: arrays of a hundred megabytes are not for reading."""
        rows, columns = self.grid
        return (
            f"Gaussian({rows} x {columns} positions, {self.channels} channels, {self.factorisation} of rank "
            f"{self.rank}, {self.storage}, {self.samples} samples, {self.nbytes / 1e6:.1f} MB)"
        )

    def astype(self, storage: Storage) -> Gaussian:
        """The same model with its factor stored as float32, float16 or bfloat16; sums stay float32."""
        factor = encode(decode(self.factor, self.storage), check(storage))
        return replace(self, factor=factor, storage=storage)

    def save(self, path: str | Path) -> None:
        """Write the model to one safetensors file."""
        arrays = {"mean": self.mean, "factor": self.factor, "eps": self.eps}
        optional = {"scale": self.scale, "weights": self.weights, "tail": self.tail}
        arrays |= {name: array for name, array in optional.items() if array is not None}
        facts: dict[str, object] = {"storage": self.storage, "samples": self.samples}
        if (cut := self.truncation) is not None:
            facts["truncation"] = [cut.bound, cut.rms, cut.explained]
        files.write(Path(path), arrays, facts)

    @classmethod
    def load(cls, path: str | Path) -> Gaussian:
        """Read a model; raises ModelFileError when the file is missing, damaged or no model of this version."""
        arrays, facts = files.read(Path(path))
        with files.checking(Path(path)):
            cut = facts.pop("truncation", None)
            return cls(**arrays, **facts, truncation=None if cut is None else Truncation(*cut))


def _expect(name: str, array: npt.NDArray[np.generic] | None, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
    """Raise ShapeError unless the array is of this dtype and shape, and C-contiguous."""
    if array is None:
        raise ShapeError(f"Gaussian.{name}: missing; a low-rank model has scale, weights and tail")
    if array.dtype != dtype or array.shape != shape:
        raise ShapeError(
            f"Gaussian.{name}: expected {np.dtype(dtype)} {shape}, got {array.dtype} {array.shape}; "
            f"make models with fit()"
        )
    if not array.flags.c_contiguous:
        raise ShapeError(f"Gaussian.{name}: expected a C-contiguous array; use numpy.ascontiguousarray")
