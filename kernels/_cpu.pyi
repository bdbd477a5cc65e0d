from typing import Any

import numpy as np
import numpy.typing as npt

def instruction_sets() -> list[str]: ...
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
