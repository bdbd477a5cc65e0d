"""Times anomalib's Mahalanobis step by itself, call by call: python step.py ARRAYS THREADS EVICTED_BYTES.

ARRAYS is an .npz file of `features` (N, C, h, w), `mean` (C, P) and `inverse` (P, C, C), P = h * w. Each timed call
follows one that is not timed, and EVICTED_BYTES written to memory, as with our own contenders. Speaks the line
protocol of engine.bench.worker, without importing the engine, which is not installed here.
"""

# mypy: ignore-errors
# It runs in the peer's environment, whose packages are not installed in ours.
from __future__ import annotations

import json
import sys
import time

import compat  # noqa: F401 - mends torchvision
import numpy as np
import torch
from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator


def main(arrays: str, threads: str, evicted_bytes: str) -> None:
    """Answer {"out": FILE} with {"seconds"} of one call, whose distances (N, h, w) go to FILE where one is named."""
    torch.set_num_threads(int(threads))
    found = np.load(arrays)
    features, mean, inverse = (torch.from_numpy(found[name]) for name in ("features", "mean", "inverse"))
    say({"ready": True})
    for line in sys.stdin:
        with torch.inference_mode():
            AnomalyMapGenerator.compute_distance(features, [mean, inverse])
            np.ones(int(evicted_bytes) // 8)
            started = time.perf_counter()
            distances = AnomalyMapGenerator.compute_distance(features, [mean, inverse])
            seconds = time.perf_counter() - started
        if out := json.loads(line)["out"]:
            np.save(out, distances[:, 0].numpy())
        say({"seconds": seconds})


def say(document: dict[str, object]) -> None:
    """One line on stdout."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
