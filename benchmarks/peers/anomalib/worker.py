"""Times anomalib's OpenVINO inferencer, segment by segment: python worker.py MODEL PICTURES BATCH THREADS PRECISION.

PRECISION is `default` (what OpenVINO picks for this CPU) or an OpenVINO type such as `f32`. Speaks the line protocol of
engine.bench.worker, without importing the engine, which is not installed here.
"""

# mypy: ignore-errors
# It runs in the peer's environment, whose packages are not installed in ours.
from __future__ import annotations

import json
import sys
import time
from itertools import cycle, islice
from pathlib import Path

import compat  # noqa: F401 - mends torchvision
import cv2
import numpy as np
from anomalib.deploy import OpenVINOInferencer

SIDE_PX = 256
WARMUP_BATCHES = 3


def main(model: str, pictures: str, batch: str, threads: str, precision: str) -> None:
    """Answer {"seconds": s} with {"fps", "cpu_ms"} until stdin ends."""
    config: dict[str, object] = {"INFERENCE_NUM_THREADS": int(threads)} if int(threads) else {}
    if precision != "default":
        config["INFERENCE_PRECISION_HINT"] = precision
    inferencer = OpenVINOInferencer(path=model, device="CPU", config=config)
    images = cycle([cv2.cvtColor(cv2.imread(str(f)), cv2.COLOR_BGR2RGB) for f in sorted(Path(pictures).glob("*.jpg"))])

    def step() -> None:
        resized = [cv2.resize(image, (SIDE_PX, SIDE_PX)) for image in islice(images, int(batch))]
        prediction = inferencer.predict(np.stack(resized))
        assert prediction.anomaly_map.shape[0] == int(batch)

    for _ in range(WARMUP_BATCHES):
        step()
    say({"ready": True})
    for line in sys.stdin:
        seconds = json.loads(line)["seconds"]
        frames, started, cpu_started = 0, time.perf_counter(), time.process_time()
        while (elapsed := time.perf_counter() - started) < seconds:
            step()
            frames += int(batch)
        say({"fps": frames / elapsed, "cpu_ms": 1e3 * (time.process_time() - cpu_started) / frames})


def say(document: dict[str, object]) -> None:
    """One line on stdout."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:] != ["--check"]:
        main(*sys.argv[1:])
