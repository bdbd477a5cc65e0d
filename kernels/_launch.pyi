"""What to launch on a GPU for a problem."""

Axis = tuple[int, int, int, int, int]
Four = tuple[int, int, int, int]
Launch = tuple[str, int, int, int, bytes]

MAX_CHANNELS: int

def problem(
    features: int,
    features_number: str,
    shape: Four,
    strides: Four,
    factor: int,
    factor_number: str,
    mean: int,
    scale: int,
    weights: int,
    tail: int,
    rank: int,
    out: int,
) -> bytes: ...
def map(
    problem: bytes, multiprocessors: int, shared_per_block: int, shared_per_multiprocessor: int, major: int, minor: int
) -> Launch: ...
def upsample(grids: int, batch: int, rows: Axis, columns: Axis, maps: int, scores: int) -> Launch: ...
