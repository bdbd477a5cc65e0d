"""A model server that is away fails no frame, and does not hold up a stop."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from engine.batcher import Batcher
from engine.errors import BackendAwayError
from engine.metrics import Metrics
from engine.pipeline.health import Health
from engine.pipeline.inference import Inference
from engine.pipeline.job import Job
from engine.serving.base import ConstantPredictor, Screening
from engine.types import Delivery


class AwayPredictor(ConstantPredictor):
    """Away until it is told otherwise."""

    def __init__(self):
        self.asked = threading.Event()
        self.here = False

    def predict(self, images):
        self.asked.set()
        if not self.here:
            raise BackendAwayError("nobody there")
        return super().predict(images)


class Done(list):
    """The batches that are done; what is begun anew once it is outdated."""

    def __init__(self):
        super().__init__()
        self.outdated = False
        self.anew = []


@pytest.fixture
def started(make_watch):
    """An inference with one frame in it, its predictor, its health, and the batches that are done."""
    predictor, health, done = AwayPredictor(), Health(), Done()
    inference = Inference(
        Batcher(1, 0),
        Metrics(),
        health,
        nothing_more=lambda: True,
        done=done.append,
        outdated=lambda job: done.outdated,
        anew=done.anew.extend,
        grown=lambda job: pytest.fail("there is no cascade"),
    )
    job = Job(Delivery("line1", "1-0", 1, b"", b""), make_watch(predictor=predictor), 0.0)
    job.image = np.full((32, 32, 3), 51, np.uint8)
    inference.put(job)
    thread = threading.Thread(target=inference.loop)
    thread.start()
    assert predictor.asked.wait(10)
    yield inference, predictor, health, done
    inference.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_a_frame_waits_until_the_server_is_back(started, wait_until):
    _, predictor, health, done = started
    wait_until(lambda: health.trouble_s() > 0)
    assert not done
    predictor.here = True
    wait_until(lambda: done)
    assert [(job.failure, round(job.raw_score, 6)) for job in done[0]] == [(None, 0.2)]
    assert health.trouble_s() == 0


def test_a_stop_ends_the_waiting_and_the_frame_is_nobody_s(started, wait_until):
    inference, _, health, done = started
    wait_until(lambda: health.trouble_s() > 0)
    inference.stop()
    assert not done


def test_a_frame_whose_line_has_another_model_by_now_is_begun_anew(started, wait_until):
    _, _, health, done = started
    wait_until(lambda: health.trouble_s() > 0)
    done.outdated = True
    wait_until(lambda: done.anew)
    assert [job.delivery.entry for job in done.anew] == ["1-0"]
    assert not done


class Escalating(ConstantPredictor):
    """A cascade whose first member settles dark frames only; brightness 140 is held up until `gate` opens."""

    def __init__(self):
        self.gate = threading.Event()
        self.held_up = threading.Event()
        self.completed = []

    def screen(self, images):
        levels = images[:, 0, 0, 0]
        if (levels == 140).any():
            self.held_up.set()
            assert self.gate.wait(10)
        raw = replace(super().predict(images), common={"common.level": levels.astype(np.float32)[:, np.newaxis]})
        return Screening(raw, levels < 100)

    def complete(self, images, first):
        levels = images[:, 0, 0, 0]
        np.testing.assert_array_equal(first.common["common.level"][:, 0], levels)
        self.completed.append(sorted(map(int, levels)))
        return first


def test_what_a_cascade_does_not_settle_waits_for_others_that_may_come(make_watch, wait_until):
    """While another batch is being screened, though no new frame can come: a batch of two, not two of one."""
    cascade, done, grown = Escalating(), [], []
    inference = Inference(
        Batcher(2, 60_000),
        Metrics(),
        Health(),
        nothing_more=lambda: True,
        done=done.extend,
        outdated=lambda job: False,
        anew=done.extend,
        grown=lambda job: grown.append((job.key[1], job.charge_bytes)),
    )
    watch = make_watch(predictor=cascade, cascade=cascade)
    threads = [threading.Thread(target=inference.loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    inference.put(framed(watch, 1, 140))
    assert cascade.held_up.wait(10)
    for number, level in ((2, 20), (3, 120)):
        inference.put(framed(watch, number, level))
    wait_until(lambda: len(done) == 1)
    assert cascade.completed == []
    cascade.gate.set()
    wait_until(lambda: len(done) == 3)
    inference.stop()
    for thread in threads:
        thread.join(10)
    assert cascade.completed == [[120, 140]]
    pixels = 32 * 32
    assert sorted(grown) == [("1-0", 7 * pixels + 4), ("3-0", 7 * pixels + 4)]  # picture and map; what it goes on from
    assert all(job.common == {} for job in done)


def framed(watch, number, level):
    job = Job(Delivery("line1", f"{number}-0", 1, b"", b""), watch, 0.0)
    job.image = np.full((32, 32, 3), level, np.uint8)
    return job
