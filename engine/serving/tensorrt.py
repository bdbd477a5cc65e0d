"""TensorRT in this process: pictures go to the device, scores and maps come back, everything between stays there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from queue import LifoQueue
from typing import Any

from engine.bundle import Bundle
from engine.contract import Precision
from engine.errors import BackendError
from engine.machine import gpu
from engine.plans import library, store
from engine.plans.library import Library
from engine.plans.store import Plan
from engine.serving.base import RawBatch
from engine.serving.lane import Lane, Model
from engine.types import U8
from kernels.cuda.driver import Device
from kernels.errors import KernelError

log = logging.getLogger(__name__)

LANES = 2  # while the device works for one batch, the next one's pictures are copied to it
_DEVICE = 0


class TensorrtDetector:
    """Runs one executable of a bundle by its plan on the first device; a `Predictor`.

    Each batch takes a lane: a stream with memory of its own. Batches of several threads overlap in two of them; more
    pictures than the plan takes go in several runs.
    """

    backend = "tensorrt"

    def __init__(self, model: Model, precision: Precision) -> None:
        self._precision = precision
        self._most = model.most
        self._lanes: LifoQueue[Lane] = LifoQueue()
        for _ in range(LANES):
            self._lanes.put(Lane(model))

    @property
    def precision(self) -> str:
        """See `Predictor.precision`."""
        return self._precision

    def predict(self, images: U8) -> RawBatch:
        """See `Predictor.predict`."""
        runs = [images[i : i + self._most] for i in range(0, len(images), self._most)]
        try:
            done = [self._run(run) for run in runs]
        except (KernelError, RuntimeError) as error:
            raise BackendError(f"TensorRT failed on a batch of shape {images.shape}: {error}") from error
        return RawBatch.joined(done)

    def close(self) -> None:
        """See `Predictor.close`."""
        while not self._lanes.empty():
            self._lanes.get().close()

    def _run(self, images: U8) -> RawBatch:
        with self._lane() as lane:
            return lane.run(images)

    @contextmanager
    def _lane(self) -> Iterator[Lane]:
        """A lane that no other batch uses, waiting for one."""
        lane = self._lanes.get()
        try:
            yield lane
        finally:
            self._lanes.put(lane)


def why_not() -> str | None:
    """Why plans cannot run on this machine, in a few words; None where they can."""
    if gpu() is None:
        return "no NVIDIA GPU: nvidia-smi finds none"
    if not library.available():
        return "no TensorRT: pip install 'anomaly-engine[tensorrt]', or pip install tensorrt"
    try:
        Device.of(_DEVICE)
    except KernelError as error:
        return str(error)
    return None


def open_detector(bundle: Bundle, precision: Precision) -> TensorrtDetector:
    """Load an executable by its plan, which is built first where there is none for this machine.

    Raises BackendError, in one line, where plans cannot run here or this one cannot be built.
    """
    if (why := why_not()) is not None:
        raise BackendError(f"backend 'tensorrt' cannot run here ({why}); use backend 'auto', 'onnx' or 'openvino'")
    found = library.find()
    plan = store.ensure(bundle, precision, found)
    engine = _load(found, plan)
    if engine is None:  # it fits by its record, and TensorRT knows better
        plan = store.rebuild(bundle, precision, found, plan.record.options, f"it does not load: {_why(found)}")
        engine = _load(found, plan)
    if engine is None:
        raise BackendError(f"{plan.path}: {found.name} {found.version} does not load what it has built: {_why(found)}")
    return TensorrtDetector(Model.of(bundle, precision, found, engine, Device.of(_DEVICE)), precision)


def _load(found: Library, plan: Plan) -> Any:
    """The engine of a plan; None where TensorRT refuses it."""
    runtime = found.module.Runtime(found.logger)
    if plan.record.version_compatible:  # such a plan carries its own runtime, as code
        runtime.engine_host_code_allowed = True
    with Device.of(_DEVICE).current():
        return runtime.deserialize_cuda_engine(plan.content)


def _why(found: Library) -> str:
    return found.logger.last_error or "it gave no reason"
