"""The pipeline of one process: its stages wired together, started and stopped."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import cv2

from engine.appearance import appearance
from engine.batcher import Batcher
from engine.codec import decode_frame, encode_pictures
from engine.config import Config
from engine.decide import decide
from engine.drift import Gauges, Monitor
from engine.errors import FrameError, InferenceError, StreamError
from engine.images import decode
from engine.machine import cpu_count
from engine.metrics import ELSEWHERE, Metrics, MetricsServer
from engine.pipeline.health import Health
from engine.pipeline.inference import Inference
from engine.pipeline.job import Job, Watch
from engine.pipeline.keeper import Keeper
from engine.pipeline.ledger import Ledger
from engine.pipeline.publisher import Publisher
from engine.pipeline.reader import Reader
from engine.pipeline.workers import Workers
from engine.serving.base import Predictor
from engine.streams.base import FrameSource, OutcomeSink
from engine.types import Delivery

log = logging.getLogger(__name__)

_BATCHES_RUN = 2  # at a time: their serial parts overlap
_BATCHES_BESIDE = 3  # full batches of every line besides: one before the model, one behind it, one being read
_MIN_HELD = 64
_MAX_HELD = 1024
_HELD_BYTES = 256 << 20
_MAX_WORKERS = 8
_GRACE_S = 8.0  # at a stop, how long a server that is away or refuses is waited for
_POLL_S = 0.1


class Pipeline:
    """Watches lines until it is stopped: `run` blocks, `stop` may be called from a signal handler or any thread.

    Source and sink belong to the caller, who closes them afterwards.
    """

    def __init__(
        self, source: FrameSource, sink: OutcomeSink, watches: Sequence[Watch], config: Config, metrics: Metrics
    ) -> None:
        self._source = source
        self._watches = {watch.line: watch for watch in watches}
        self._config = config
        self._metrics = metrics
        self._health = Health()
        self._failure: Exception | None = None
        self._stopping = False
        held_frames = _held_frames(config, len(watches))
        self._ledger = Ledger(held_frames, _HELD_BYTES, config.delivery.max_frame_bytes)
        self._workers = Workers(decode=self._decode, decoded=self._decoded, finish=self._finish)
        self._publisher = Publisher(
            sink,
            self._ledger,
            self._health,
            source.consumer,
            more_soon=lambda: self._workers.finishing,
            over=self._over,
        )
        batcher: Batcher[Job] = Batcher(config.batch.max_size, config.batch.max_wait_ms)
        self._inference = Inference(
            batcher,
            metrics,
            self._health,
            nothing_more=self._nothing_more,
            done=self._workers.finish,
            outdated=self._outdated,
            anew=self._begin_anew,
            grown=self._ledger.charge_again,
        )
        self._keeper = Keeper(source, self._ledger, config.delivery.claim_idle_ms)
        self._reader = Reader(
            source,
            self._ledger,
            self._health,
            metrics,
            admit=self._admit,
            refused_lines=lambda: self._publisher.refused_lines,
            turned=self._inference.poke,
        )
        metrics.watch_ready(lambda: self.ready)
        metrics.registry.register(Gauges(self._monitors))

    @property
    def ready(self) -> bool:
        """Whether frames are being read and results accepted."""
        return self._health.ready and not self._stopping

    @property
    def healthy(self) -> bool:
        """Whether every stage works."""
        return self._failure is None

    def run(self, *, burst: bool = False) -> None:
        """Read, judge and publish until `stop`; with `burst` until the streams are empty.

        Raises StreamError where the server refuses from the start. A server that is away is waited for.
        """
        loops: list[Callable[[], None]] = [self._publisher.loop, self._keeper.loop]
        loops += [self._inference.loop] * _batches_run(self._config)
        loops += [self._workers.loop] * min(_MAX_WORKERS, cpu_count())
        cv2.setNumThreads(1)  # the workers share the cores among pictures already
        threads = [threading.Thread(target=self._guard, args=(loop,), name=_name(loop), daemon=True) for loop in loops]
        with ExitStack() as stack:
            if self._config.metrics.port:
                stack.enter_context(self._metrics_server())
            for thread in threads:
                thread.start()
            try:
                self._reader.loop(burst=burst)
            finally:
                self._shut_down(threads)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Finish what has been begun, hand the rest back, and let `run` return."""
        self._stopping = True
        self._reader.stop()

    def swap(self, watch: Watch) -> None:
        """Judge what a line receives from now on by another model; what has begun ends with the model it began with."""
        self._watches[watch.line] = watch

    def in_use(self, predictor: Predictor) -> bool:
        """Whether any frame that is held here needs a model."""
        return any(job.watch.predictor is predictor for job in self._ledger.held())

    def _monitors(self) -> list[Monitor]:
        """Those of the models that are in force."""
        return [watch.drift for watch in list(self._watches.values()) if watch.drift is not None]

    def _metrics_server(self) -> MetricsServer:
        where = self._config.metrics
        return MetricsServer(
            self._metrics, where.host, where.port, healthy=lambda: self.healthy, ready=lambda: self.ready
        )

    def _guard(self, loop: Callable[[], None]) -> None:
        """Run a stage's thread; a stage that breaks ends the pipeline."""
        try:
            loop()
        except Exception as error:  # the outer loop: what nobody foresaw ends the process, and its frames stay pending
            log.exception("%s broke", threading.current_thread().name)
            self._failure = error
            self.stop()

    def _shut_down(self, threads: Sequence[threading.Thread]) -> None:
        self._stopping = True
        self._hand_back(self._workers.unbegun())
        self._inference.poke()
        while not self._ledger.wait_empty(_POLL_S):
            if self._failure is not None or self._health.trouble_s() > _GRACE_S:
                break
        for stage in (self._workers, self._inference, self._publisher, self._keeper):
            stage.stop()
        for thread in threads:
            thread.join()
        if self._failure is None:  # else one of them may be the cause, and must come back as a suspect
            self._hand_back(self._ledger.held())

    def _hand_back(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        self._ledger.end(jobs)  # first, so that they are not renewed any more
        try:
            self._source.release([job.delivery for job in jobs])
        except StreamError as error:
            log.warning("%d frames stay pending until another consumer claims them: %s", len(jobs), error)

    def _nothing_more(self) -> bool:
        return not self._reader.open and not self._workers.decoding

    def _outdated(self, job: Job) -> bool:
        return self._watches[job.watch.line] is not job.watch

    def _begin_anew(self, jobs: Sequence[Job]) -> None:
        self._ledger.end(jobs)
        self._admit([job.delivery for job in jobs])

    def _admit(self, deliveries: Sequence[Delivery]) -> None:
        now_s = time.monotonic()
        fresh = self._ledger.admit([Job(delivery, self._watches[delivery.line], now_s) for delivery in deliveries])
        for job in fresh:
            self._check_delivery(job)
        self._workers.decode([job for job in fresh if job.failure is None])
        if failed := [job for job in fresh if job.failure is not None]:
            self._publisher.put(failed)

    def _check_delivery(self, job: Job) -> None:
        delivery, limit = job.delivery, self._config.delivery.max_deliveries
        if delivery.meta is None:
            job.failure = ("trimmed", "the entry was removed from its stream before it could be processed")
        elif delivery.deliveries > limit:
            job.failure = ("max_deliveries", f"delivered {limit} times, and no consumer lived to end it")
        if job.failure is not None:
            log.warning("%s %s: %s: %s", delivery.line, delivery.entry, *job.failure)

    def _decode(self, job: Job) -> None:
        """Bytes to a picture at the model's input size, or a failure, or expired."""
        if job.lost:
            return
        limits, delivery, watch = self._config.delivery, job.delivery, job.watch
        started_s = time.perf_counter()
        age_ms = self._source.now_ms(delivery.line) - delivery.entry_ms
        job.timing_ms = {"queue": max(0.0, age_ms), "decode": 0.0, "infer": 0.0}
        try:
            job.frame = decode_frame(delivery.meta or b"", delivery.data)
            if limits.max_age_ms and age_ms > limits.max_age_ms:
                job.expired = True
                job.drop_payload()
                return
            image = decode(job.frame, max_pixels=limits.max_pixels, max_frame_bytes=limits.max_frame_bytes)
            job.size = (image.shape[0], image.shape[1])
            if watch.interest is not None:
                job.view = watch.interest.view(job.frame.camera, job.size)
            job.image = watch.sheet.fit(image)
            if watch.drift is not None:
                height, width = watch.drift.size
                job.appearance = appearance(job.image[:height, :width])
        except FrameError as error:
            job.fail(error)
        job.timing_ms["decode"] = (time.perf_counter() - started_s) * 1e3

    def _decoded(self, job: Job) -> None:
        if job.image is not None:
            self._inference.put(job)
            return
        if job.lost:
            self._ledger.end([job])
            self._over(job, ended=False)
        else:
            self._publisher.put([job])
        if not self._workers.decoding:
            self._inference.poke()

    def _finish(self, jobs: Sequence[Job]) -> None:
        """Raw output to decisions and their pictures."""
        for job in jobs:
            if job.failure is None:
                self._judge(job)
        self._publisher.put(jobs)

    def _judge(self, job: Job) -> None:
        assert job.raw_map is not None
        if not math.isfinite(job.raw_score):
            job.fail(InferenceError(f"{job.watch.model}: the score is {job.raw_score}; check the model"))
            return
        watch, publish = job.watch, self._config.publish
        if watch.drift is not None and job.appearance is not None and job.frame is not None:
            job.drift = watch.drift.observe(job.frame.camera, job.appearance, job.raw_score)
        job.decision = decide(
            job.raw_score,
            job.raw_map,
            watch.calibration,
            job.size,
            want_map=publish.map,
            want_mask=publish.mask,
            view=job.view,
        )
        job.pictures = encode_pictures(job.decision.anomaly_map, job.decision.pred_mask)
        if job.pictures:  # the arrays are of the frame's size, and encoded now
            job.decision = replace(job.decision, anomaly_map=None, pred_mask=None)
        job.raw_map = None
        job.drop_payload()
        self._ledger.charge_again(job)

    def _over(self, job: Job, ended: bool) -> None:
        """A frame's end; one that was delivered again meanwhile and did not end here begins anew."""
        camera = job.frame.camera if job.frame is not None else ""
        self._metrics.ended(job.watch.line, camera, job.label() if ended else ELSEWHERE, job.timing_ms)
        if not ended and job.again is not None:
            self._admit([job.again])


def _batches_run(config: Config) -> int:
    """How many batches are in the model at a time."""
    return config.triton.in_flight if config.runtime.backend == "triton" else _BATCHES_RUN


def _held_frames(config: Config, lines: int) -> int:
    max_size = config.batch.max_size
    wanted = (_batches_run(config) + _BATCHES_BESIDE) * max_size * lines
    return max(2 * max_size, min(max(wanted, _MIN_HELD), _MAX_HELD))


def _name(loop: Callable[[], None]) -> str:
    return type(getattr(loop, "__self__", loop)).__name__.lower()
