"""A consumer process for the delivery tests: the real pipeline over the brightness double, started by `fleet`.

Brightness 66 ends the process on the spot, as a crash in native code would; 67 makes the model raise.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time

import msgspec

from engine.config import Config
from engine.contract import Calibration, Estimate, Scale
from engine.errors import BackendError
from engine.metrics import Metrics
from engine.pipeline import Pipeline, Watch
from engine.serving.base import ConstantPredictor, RawBatch
from engine.sheet import Sheet
from engine.streams.redis import connect
from engine.types import U8


class Fragile(ConstantPredictor):
    """Takes `batch_s` for each batch, dies of one brightness and fails on another."""

    def __init__(self, batch_s: float) -> None:
        self._batch_s = batch_s

    def predict(self, images: U8) -> RawBatch:
        time.sleep(self._batch_s)
        if (images[:, 0, 0, 0] == 66).any():
            os._exit(9)
        if (images[:, 0, 0, 0] == 67).any():
            raise BackendError("the model failed")
        return super().predict(images)


def main() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    config = msgspec.json.decode(sys.argv[1], type=Config)
    estimate = Estimate(target_fpr=0.01, how="k-fold", guarantee=False, n_images=9, folds=3, interval=(0, 1), note="")
    scale = Scale(threshold=0.5, width=0.1)
    calibration = Calibration(image=scale, pixel=scale, image_estimate=estimate, pixel_estimate=estimate)
    predictor = Fragile(float(sys.argv[2]))
    watches = [
        Watch(line.name, "test@1", "constant", predictor, calibration, Sheet(((32, 32),))) for line in config.line
    ]
    with connect(config) as streams:
        pipeline = Pipeline(streams.source, streams.sink, watches, config, Metrics())
        signal.signal(signal.SIGTERM, lambda *_: pipeline.stop())
        pipeline.run()


if __name__ == "__main__":
    main()
