from typing import Any

import numpy as np
import numpy.typing as npt

def instruction_sets() -> list[str]: ...
def packed_values(channels: int) -> int: ...
def row_values(channels: int) -> int: ...
def map(
    features: npt.NDArray[Any],
    features_number: str,
    factor: npt.NDArray[Any],
    factor_number: str,
    mean: npt.NDArray[np.float32],
    scale: npt.NDArray[np.float32] | None,
    weights: npt.NDArray[np.float32] | None,
    tail: npt.NDArray[np.float32] | None,
    out: npt.NDArray[np.float32],
    threads: int,
    isa: str,
) -> None: ...
def moments(
    samples: npt.NDArray[np.float32],
    mean: npt.NDArray[np.float64],
    scatter: npt.NDArray[np.float64],
    threads: int,
    isa: str,
) -> None: ...
def whiten(
    scatter: npt.NDArray[np.float64],
    scale: float,
    eps: npt.NDArray[np.float64],
    factor: npt.NDArray[np.float32],
    threads: int,
    isa: str,
) -> int: ...
