"""The threads that run models: batches of all lines, oldest first."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from engine.batcher import Batcher
from engine.errors import BackendAwayError, InferenceError
from engine.metrics import Metrics
from engine.pipeline.health import Health
from engine.pipeline.job import Job
from engine.serving.base import RawBatch, Screening
from engine.types import U8

log = logging.getLogger(__name__)

_SIDE = "inference"
_AWAY_S = 0.2

Done = Callable[[Sequence[Job]], None]


class Inference:
    """Batches decoded frames and runs their models; `done` gets the frames that are through, failed ones included.

    Where a cascade's cheapest member does not settle a frame, the frame is put into a batch again, with others that
    wait for the rest of the ensemble.

    `loop` may run in several threads: while one batch is in a part that leaves cores idle, another fills them.

    `nothing_more` says that no further frame can come until some that are in here have ended: then waiting for a
    fuller batch would be waiting for nothing. Call `poke` when that may have become true.

    A frame whose model's server is away is `outdated` where its line has another model by now; `anew` begins it with
    that one. `grown` hears of a frame that holds more memory than before.
    """

    def __init__(
        self,
        batcher: Batcher[Job],
        metrics: Metrics,
        health: Health,
        *,
        nothing_more: Callable[[], bool],
        done: Done,
        outdated: Callable[[Job], bool],
        anew: Done,
        grown: Callable[[Job], None],
    ) -> None:
        self._batcher = batcher
        self._metrics = metrics
        self._health = health
        self._nothing_more = nothing_more
        self._done = done
        self._outdated = outdated
        self._anew = anew
        self._grown = grown
        self._changed = threading.Condition()
        self._screening = 0  # batches of which some frames may come back
        self._stopped = False

    def put(self, job: Job) -> None:
        """Take a decoded frame."""
        with self._changed:
            self._add(job)
            self._changed.notify()

    def poke(self) -> None:
        """Look again whether anything more can come."""
        with self._changed:
            self._changed.notify()

    def stop(self) -> None:
        """Let each thread end after the batch it is in."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def loop(self) -> None:
        """Run batches until `stop`."""
        while (jobs := self._next()) is not None:
            screened = _screens(jobs)
            ended = self._run(jobs)
            self._hand_on(jobs if ended else (), screened)

    def _hand_on(self, jobs: Sequence[Job], screened: bool) -> None:
        """Frames that are through to `done`, the others into a batch again."""
        settled = [job for job in jobs if job.image is None or job.failure is not None]
        unsettled = [job for job in jobs if job not in settled]  # both before others work on any of them
        for job in unsettled:
            self._grown(job)
        with self._changed:
            self._screening -= screened
            for job in unsettled:
                self._add(job)
            if screened:
                self._changed.notify_all()
        if settled:
            self._done(settled)

    def _add(self, job: Job) -> None:
        self._batcher.add(job, _group(job), _now_ms(), alone=job.delivery.suspect)

    def _next(self) -> list[Job] | None:
        with self._changed:
            while not self._stopped:
                now_ms = _now_ms()
                jobs = self._batcher.take(now_ms, flush=self._nothing_more() and not self._screening)
                if jobs is not None:
                    self._screening += _screens(jobs)
                    return jobs
                due_ms = self._batcher.due_ms()
                self._changed.wait(None if due_ms is None else max(0.0, due_ms - now_ms) / 1e3)
            return None

    def _run(self, jobs: list[Job]) -> bool:
        """Run a batch; where that fails, each of its frames alone, so that only the guilty ones fail.

        A model server that is away fails no frame: it is waited for. False where the waiting ended otherwise.
        """
        error = self._predict(jobs)
        while isinstance(error, BackendAwayError):
            self._health.fails(_SIDE, error)
            if any(map(self._outdated, jobs)):
                self._anew(jobs)
                return False
            if self._stopped_within(_AWAY_S):
                return False
            error = self._predict(jobs)
        self._health.works(_SIDE)
        if error is None:
            return True
        if len(jobs) > 1:
            log.warning(
                "%s failed on a batch of %d, trying each frame alone: %s", jobs[0].watch.model, len(jobs), error
            )
            return all(self._run([job]) for job in jobs)
        log.error("%s %s: the model failed on this frame alone: %s", *jobs[0].key, error)
        jobs[0].fail(InferenceError(f"{jobs[0].watch.model}: {type(error).__name__}: {error}"))
        return True

    def _stopped_within(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._stopped, seconds)

    def _predict(self, jobs: list[Job]) -> Exception | None:
        started_s = time.perf_counter()
        try:
            screening = _look(jobs)
        except Exception as error:  # whatever a model raises is that frame's, not the engine's, end
            return error
        infer_ms = (time.perf_counter() - started_s) * 1e3
        self._metrics.batch(jobs[0].watch.model, len(jobs))
        for i, job in enumerate(jobs):
            job.timing_ms["infer"] = job.timing_ms.get("infer", 0.0) + infer_ms
            _keep(job, screening, i)
        return None


def _screens(jobs: Sequence[Job]) -> bool:
    """Whether running these frames may leave some that need the rest of an ensemble."""
    return jobs[0].watch.cascade is not None and not jobs[0].screened


def _group(job: Job) -> tuple[int, bool]:
    """Frames of lines that share a model may share a batch, where they are equally far."""
    return (id(job.watch.cascade or job.watch.predictor), job.screened)


def _look(jobs: Sequence[Job]) -> Screening:
    """Run what these frames, all equally far, need next."""
    watch, images = jobs[0].watch, _stack(jobs)
    if watch.cascade is None:
        raw = watch.predictor.predict(images)
    elif not jobs[0].screened:
        return watch.cascade.screen(images)
    else:
        raw = watch.cascade.complete(images, _first(jobs))
    return Screening(raw, np.ones(len(jobs), np.bool_))


def _first(jobs: Sequence[Job]) -> RawBatch:
    """What the cheapest member said of them."""
    names = jobs[0].members
    return RawBatch(
        scores=np.array([job.raw_score for job in jobs]),
        maps=np.stack([job.raw_map for job in jobs if job.raw_map is not None]),
        members={name: np.array([job.members[name] for job in jobs]) for name in names},
        common={name: np.stack([job.common[name] for job in jobs]) for name in jobs[0].common},
    )


def _stack(jobs: Sequence[Job]) -> U8:
    """(N, height, width, 3) of the jobs' pictures."""
    images = [job.image for job in jobs if job.image is not None]
    return images[0][np.newaxis] if len(images) == 1 else np.stack(images)


def _keep(job: Job, screening: Screening, i: int) -> None:
    """Note what was found of the i-th frame, and whether that settles it."""
    raw = screening.raw
    job.screened = True
    if screening.exits[i]:
        job.image, job.common = None, {}
    else:
        job.common = {name: rows[i].copy() for name, rows in raw.common.items()}  # not the whole batch's
    job.raw_score = float(raw.scores[i])
    job.raw_map = raw.maps[i]
    job.members = {name: float(scores[i]) for name, scores in raw.members.items()}


def _now_ms() -> float:
    return time.monotonic() * 1e3
