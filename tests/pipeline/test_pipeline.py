"""The pipeline over the in-memory streams: every outcome, bounds, stopping, and servers that misbehave."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgpack
import numpy as np
import pytest

from engine import config as settings
from engine.codec import encode_frame
from engine.config import Config
from engine.contract import Calibration
from engine.errors import BackendError, StreamError
from engine.images import decode
from engine.metrics import Metrics
from engine.pipeline import Pipeline, Watch
from engine.serving.base import ConstantPredictor, RawBatch, Screening
from engine.streams.base import Ending, Outcome
from engine.streams.memory import MemoryStreams
from engine.types import U8, Frame

MakeWatch = Callable[..., Watch]
WaitUntil = Callable[..., None]


def fields(level: int = 20, **changes: object) -> tuple[bytes, bytes]:
    """A raw 32 x 32 frame of one brightness."""
    values = {"camera": "cam1", "ts_ns": time.time_ns(), "codec": "raw", "data": bytes([level]) * 3072}
    packed = encode_frame(Frame(**{**values, "shape": (32, 32, 3), "pixel_format": "RGB8", **changes}))
    return packed["meta"], packed["data"]


def config(**sections: object) -> Config:
    return Config(line=(settings.Line(name="line1", bundle="x"), settings.Line(name="line2", bundle="x")), **sections)


def pipeline(streams: MemoryStreams, make_watch: MakeWatch, predictor: object = None, **sections: object) -> Pipeline:
    watches = [make_watch(name, predictor or ConstantPredictor()) for name in ("line1", "line2")]
    return Pipeline(streams, streams, watches, config(**sections), Metrics())


@contextmanager
def running(subject: Pipeline) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=subject.run)
    thread.start()
    try:
        yield thread
    finally:
        subject.stop()
        thread.join(20)
        assert not thread.is_alive()


class Recorder(ConstantPredictor):
    """Keeps the sizes of its batches; `gate` holds it up, `poison` is a brightness that it fails on."""

    def __init__(self, poison: int | None = None) -> None:
        self.batches: list[list[int]] = []
        self.poison = poison
        self.gate = threading.Event()
        self.gate.set()

    def predict(self, images: U8) -> RawBatch:
        self.gate.wait(20)
        levels = [int(level) for level in images[:, 0, 0, 0]]
        self.batches.append(levels)
        if self.poison in levels:
            raise BackendError("poisoned")
        return super().predict(images)


def dead_types(streams: MemoryStreams) -> list[str]:
    return [outcome.dead.type for outcome in streams.ended if outcome.dead is not None]


def test_good_and_anomalous_frames_get_their_verdicts(make_watch: MakeWatch) -> None:
    streams = MemoryStreams()
    before_ns = time.time_ns()
    dark = streams.push("line1", *fields(20, id="dark", tags={"part": 7}))
    bright = streams.push("line1", *fields(230))
    pipeline(streams, make_watch).run(burst=True)
    results = {outcome.result.frame: outcome for outcome in streams.ended}
    good, reject = results[dark].result, results[bright].result
    assert (good.id, good.camera, good.tags, good.status) == ("dark", "cam1", {"part": 7}, "ok")
    assert (good.pred_label, good.decision, good.regions) == (False, "good", ())
    assert good.raw_score == pytest.approx(20 / 255)
    assert (reject.id, reject.pred_label, reject.decision) == (bright, True, "reject")
    assert reject.regions[0].bbox == (0, 0, 32, 32)
    assert reject.scores == {"constant": reject.pred_score}
    assert (dict(results[dark].pictures), list(results[bright].pictures)) == ({}, ["pred_mask"])
    for result in (good, reject):
        assert set(result.timing_ms) == {"queue", "decode", "infer", "total"}
        assert all(ms >= 0 for ms in result.timing_ms.values())
        assert result.timing_ms["total"] <= (time.time_ns() - before_ns) / 1e6


def test_members_are_calibrated_each_on_its_own(make_watch: MakeWatch) -> None:
    class Ensemble(ConstantPredictor):
        def predict(self, images: U8) -> RawBatch:
            raw = super().predict(images)
            return RawBatch(raw.scores, raw.maps, {"fyd": raw.scores, "igd": raw.scores + 1})

    watch = make_watch("line1", Ensemble())
    watch = make_watch("line1", Ensemble(), members={"fyd": watch.calibration, "igd": watch.calibration})
    streams = MemoryStreams()
    streams.push("line1", *fields(20))
    Pipeline(streams, streams, [watch], config(), Metrics()).run(burst=True)
    scores = streams.ended[0].result.scores
    assert scores["fyd"] < 0.5 < scores["igd"]


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ((b"\xc1", b""), "contract"),
        ((fields()[0], b"short"), "contract"),
        (fields(codec="jpeg", data=b"\xff\xd8\xff"), "decode"),
        (fields(shape=(8, 8, 3), data=bytes(192)), "too_small"),
        (fields(shape=(9000, 9000, 3)), "too_large"),
        ((None, None), "trimmed"),
    ],
)
def test_a_broken_frame_becomes_its_dead_letter(
    make_watch: MakeWatch, entry: tuple[bytes | None, bytes | None], kind: str
) -> None:
    streams = MemoryStreams()
    innocent = streams.push("line1", *fields())
    guilty = streams.push("line1", *entry)
    pipeline(streams, make_watch).run(burst=True)
    ends = {outcome.delivery.entry: outcome for outcome in streams.ended}
    assert ends[innocent].result is not None
    letter = ends[guilty].dead
    assert (letter.type, letter.model, letter.deliveries, letter.consumer) == (kind, "test@1", 1, "memory")
    assert "\n" not in letter.message
    assert (ends[guilty].delivery.meta, ends[guilty].delivery.data) == entry


def test_a_frame_that_the_model_fails_on_is_found_by_running_each_alone(make_watch: MakeWatch) -> None:
    streams = MemoryStreams()
    entries = [streams.push("line1", *fields(level)) for level in (10, 66, 30)]
    predictor = Recorder(poison=66)
    pipeline(streams, make_watch, predictor, batch=settings.Batch(max_size=3, max_wait_ms=1000)).run(burst=True)
    ends = {outcome.delivery.entry: outcome for outcome in streams.ended}
    assert sorted(predictor.batches[0]) == [10, 30, 66]
    assert ends[entries[1]].dead.type == "inference"
    assert "poisoned" in ends[entries[1]].dead.message
    assert ends[entries[1]].delivery.data == bytes([66]) * 3072
    assert ends[entries[0]].result is not None
    assert ends[entries[2]].result is not None


def test_a_score_that_is_no_number_is_a_dead_letter(make_watch: MakeWatch) -> None:
    class Broken(ConstantPredictor):
        def predict(self, images: U8) -> RawBatch:
            raw = super().predict(images)
            return RawBatch(np.full_like(raw.scores, np.nan), raw.maps)

    streams = MemoryStreams()
    streams.push("line1", *fields())
    pipeline(streams, make_watch, Broken()).run(burst=True)
    assert dead_types(streams) == ["inference"]


def test_old_frames_expire_without_inference(make_watch: MakeWatch) -> None:
    streams = MemoryStreams()
    streams.now_ms = lambda line: 1001.0  # entries are from time 0
    streams.push("line1", *fields())
    predictor = Recorder()
    pipeline(streams, make_watch, predictor, delivery=settings.Delivery(max_age_ms=1000)).run(burst=True)
    result = streams.ended[0].result
    assert (result.status, result.pred_score, result.pred_label, result.decision) == ("expired", None, None, None)
    assert (result.raw_score, result.scores, result.regions, streams.ended[0].pictures) == (None, {}, (), {})
    assert predictor.batches == []


def test_lines_that_share_a_model_share_batches_and_others_do_not(make_watch: MakeWatch) -> None:
    streams = MemoryStreams()
    for level, line in ((1, "line1"), (2, "line2"), (3, "line1"), (4, "line2")):
        streams.push(line, *fields(level))
    shared = Recorder()
    batch = settings.Batch(max_size=4, max_wait_ms=1000)
    pipeline(streams, make_watch, shared, batch=batch).run(burst=True)
    assert [sorted(levels) for levels in shared.batches] == [[1, 2, 3, 4]]


def test_nothing_else_is_in_the_pipeline_while_a_suspect_runs(make_watch: MakeWatch) -> None:
    streams = MemoryStreams()
    beside_suspects = []

    class Watcher(Recorder):
        def predict(self, images: U8) -> RawBatch:
            if (images[:, 0, 0, 0] % 2).any():
                beside_suspects.append(len(streams._pending))
                time.sleep(0.01)
            return super().predict(images)

    for level in range(40):
        streams.push("line1", *fields(level), deliveries=1 + level % 2)
    predictor = Watcher()
    pipeline(streams, make_watch, predictor).run(burst=True)
    assert [level for levels in predictor.batches for level in levels if level % 2] == list(range(1, 40, 2))
    assert beside_suspects == [1] * 20
    assert len(streams.ended) == 40


def test_an_exhausted_frame_is_buried_unseen(make_watch: MakeWatch) -> None:
    streams = MemoryStreams()
    streams.push("line1", *fields(), deliveries=4)
    predictor = Recorder()
    pipeline(streams, make_watch, predictor, delivery=settings.Delivery(max_deliveries=3)).run(burst=True)
    assert dead_types(streams) == ["max_deliveries"]
    assert streams.ended[0].dead.deliveries == 3
    assert predictor.batches == []


def test_what_is_held_is_bounded_by_count(make_watch: MakeWatch, wait_until: WaitUntil) -> None:
    streams = MemoryStreams()
    predictor = Recorder()
    predictor.gate.clear()
    for _ in range(300):
        streams.push("line1", *fields())
    subject = pipeline(streams, make_watch, predictor, batch=settings.Batch(max_size=16))
    with running(subject):
        wait_until(lambda: len(streams._pending) > 70)
        time.sleep(0.05)
        held = len(streams._pending)
        predictor.gate.set()
        wait_until(lambda: len(streams.ended) == 300)
    assert held <= 160  # five batches of sixteen for each of two lines


def test_what_is_held_is_bounded_by_bytes(make_watch: MakeWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.pipeline.pipeline._HELD_BYTES", 40_000)  # three of these frames
    streams = MemoryStreams()
    most = 0

    class Watcher(ConstantPredictor):
        def predict(self, images: U8) -> RawBatch:
            nonlocal most
            most = max(most, len(streams._pending))
            return super().predict(images)

    for _ in range(60):
        streams.push("line1", *fields())
    pipeline(streams, make_watch, Watcher(), delivery=settings.Delivery(max_frame_bytes=12_000)).run(burst=True)
    assert len(streams.ended) == 60
    assert 2 <= most <= 3


def test_what_waits_to_be_published_holds_its_encoded_pictures_and_no_others(
    make_watch: MakeWatch, wait_until: WaitUntil
) -> None:
    streams = MemoryStreams()
    predictor = Recorder()
    predictor.gate.clear()
    subject = pipeline(streams, make_watch, predictor, publish=settings.Publish(map="always", mask="always"))
    with running(subject):
        for level in (20, 230):
            streams.push("line1", *fields(level, shape=(400, 400, 3), data=bytes([level]) * 480_000))
        wait_until(lambda: len(subject._ledger.held()) == 2)
        assert subject._ledger.load()[1] > 2 * 480_000
        streams.away = True
        predictor.gate.set()
        wait_until(lambda: all(job.pictures for job in subject._ledger.held()))
        wait_until(lambda: subject._ledger.load()[1] < 40_000)
        held = subject._ledger.held()
        assert {(job.delivery.data, job.frame.data, job.raw_map, job.image) for job in held} == {
            (None, b"", None, None)
        }
        assert {(job.decision.anomaly_map, job.decision.pred_mask) for job in held} == {(None, None)}
        streams.away = False
        wait_until(lambda: len(streams.ended) == 2)
    assert {tuple(outcome.pictures) for outcome in streams.ended} == {("anomaly_map", "pred_mask")}


def test_a_full_ledger_does_not_wait_for_a_fuller_batch(make_watch: MakeWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.pipeline.pipeline._HELD_BYTES", 40_000)
    streams = MemoryStreams()
    for _ in range(30):
        streams.push("line1", *fields())
    started_s = time.monotonic()
    pipeline(streams, make_watch, batch=settings.Batch(max_size=8, max_wait_ms=3000)).run(burst=True)
    assert len(streams.ended) == 30
    assert time.monotonic() - started_s < 3  # ten batches, none of which can ever be full


def test_stop_finishes_what_was_begun_and_hands_back_the_rest(make_watch: MakeWatch, wait_until: WaitUntil) -> None:
    streams = MemoryStreams()
    predictor = Recorder()
    predictor.gate.clear()
    for _ in range(100):
        streams.push("line1", *fields())
    subject = pipeline(streams, make_watch, predictor)
    with running(subject) as thread:
        wait_until(lambda: len(streams._pending) >= 24)
        subject.stop()
        time.sleep(0.3)
        waiting = thread.is_alive() and not subject.ready
        predictor.gate.set()
    assert waiting
    assert not streams._pending
    assert len(streams.ended) + len(streams.released) + len(streams._fresh) == 100
    assert len(streams.ended) >= 1


def test_stop_hands_back_what_no_thread_has_begun(
    make_watch: MakeWatch, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoding = threading.Semaphore(0)

    def slow_decode(frame: Frame, **limits: int) -> U8:
        decoding.acquire()
        return decode(frame, **limits)

    monkeypatch.setattr("engine.pipeline.pipeline.decode", slow_decode)
    streams = MemoryStreams()
    for _ in range(32):
        streams.push("line1", *fields())
    subject = pipeline(streams, make_watch)
    with running(subject):
        wait_until(lambda: len(streams._pending) == 32)
        subject.stop()
        wait_until(lambda: streams.released)
        begun = len(streams._pending)
        decoding.release(begun)
    assert begun <= 8
    assert (len(streams.ended), len(streams.released)) == (begun, 32 - begun)


def test_an_outcome_waits_for_a_server_that_went_away_before_its_publish(
    make_watch: MakeWatch, wait_until: WaitUntil
) -> None:
    streams = MemoryStreams()
    predictor = Recorder()
    predictor.gate.clear()
    subject = pipeline(streams, make_watch, predictor)
    with running(subject):
        streams.push("line1", *fields())
        wait_until(lambda: streams._pending)
        streams.away = True
        predictor.gate.set()
        wait_until(lambda: predictor.batches)
        time.sleep(0.1)
        streams.away = False
        wait_until(lambda: len(streams.ended) == 1)


def test_it_waits_for_a_server_that_is_away(
    make_watch: MakeWatch, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    streams = MemoryStreams()
    streams.away = True
    subject = pipeline(streams, make_watch)
    with caplog.at_level("INFO"), running(subject):
        time.sleep(0.2)
        assert not subject.ready
        streams.away = False
        wait_until(lambda: subject.ready)
        streams.away = True
        wait_until(lambda: not subject.ready)
        streams.push("line1", *fields())
        streams.away = False
        wait_until(lambda: subject.ready and len(streams.ended) == 1)
    messages = [record.message for record in caplog.records]
    assert sum("waiting for the server" in message for message in messages) == 2
    assert sum(message.startswith("ready:") for message in messages) == 1
    assert sum(message.startswith("working again") for message in messages) == 2


def test_a_refused_line_keeps_its_frames_pending_and_does_not_stop_the_others(
    make_watch: MakeWatch, wait_until: WaitUntil
) -> None:
    streams = MemoryStreams()
    streams.refused_lines = {"line1"}
    subject = pipeline(streams, make_watch)
    with running(subject):
        refused = [streams.push("line1", *fields()) for _ in range(50)]
        wait_until(lambda: not subject.ready and "line1" in subject._publisher.refused_lines)
        others = [streams.push("line2", *fields()) for _ in range(100)]
        wait_until(lambda: len(streams.ended) == len(others))
        assert not subject.ready
        assert streams.backlog() == {"line1": 50}
        streams.refused_lines = set()
        wait_until(lambda: len(streams.ended) == len(others) + len(refused))
        wait_until(lambda: subject.ready)


def test_a_line_that_cannot_be_read_makes_it_not_ready_and_does_not_stop_the_others(
    make_watch: MakeWatch, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    streams = MemoryStreams()
    streams.unreadable_lines = {"line1"}
    subject = pipeline(streams, make_watch)
    with running(subject):
        unread = streams.push("line1", *fields())
        others = [streams.push("line2", *fields()) for _ in range(20)]
        wait_until(lambda: len(streams.ended) == len(others))
        wait_until(lambda: "reading line1" in caplog.text)
        assert not subject.ready
        streams.unreadable_lines = set()
        wait_until(lambda: len(streams.ended) == len(others) + 1)
        wait_until(lambda: subject.ready)
    assert streams.ended[-1].delivery.entry == unread
    assert sum(record.levelname == "ERROR" for record in caplog.records) == 1


def test_stopping_while_a_line_is_refused_hands_its_frames_back(
    make_watch: MakeWatch, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.pipeline.pipeline._GRACE_S", 0.1)
    streams = MemoryStreams()
    streams.refused_lines = {"line1"}
    subject = pipeline(streams, make_watch)
    with running(subject):
        entry = streams.push("line1", *fields())
        wait_until(lambda: subject._publisher.refused_lines)
    assert [delivery.entry for delivery in streams.released] == [entry]
    assert not streams.ended


def test_a_refusal_at_the_start_ends_the_run(make_watch: MakeWatch) -> None:
    class Refusing(MemoryStreams):
        def read(self, max_frames: int, block_ms: int, skip: object = ()) -> list:
            raise StreamError("wrong password")

    with pytest.raises(StreamError, match="wrong password"):
        pipeline(Refusing(), make_watch).run()


def test_what_is_held_long_is_renewed_and_what_was_taken_over_is_dropped(
    make_watch: MakeWatch, wait_until: WaitUntil
) -> None:
    streams = MemoryStreams()
    predictor = Recorder()
    predictor.gate.clear()
    entries = [streams.push("line1", *fields(level)) for level in range(3)]
    subject = pipeline(streams, make_watch, predictor, delivery=settings.Delivery(claim_idle_ms=120))
    with running(subject):
        wait_until(lambda: {delivery.entry for delivery in streams.renewed} == set(entries))
        streams.take_over(entries[1])
        wait_until(lambda: any(job.lost for job in subject._ledger.held()))
        predictor.gate.set()
        wait_until(lambda: not subject._ledger.held())
    assert sorted(outcome.delivery.entry for outcome in streams.ended) == [entries[0], entries[2]]


def test_a_frame_delivered_again_before_its_publish_failed_is_not_left_behind(
    make_watch: MakeWatch, wait_until: WaitUntil
) -> None:
    """The group was lost: the publish found nothing pending, and the frame had come anew before we heard of it."""

    class GroupLost(MemoryStreams):
        lost = False

        def publish(self, outcomes: Sequence[Outcome]) -> list[Ending]:
            if self.lost:
                return super().publish(outcomes)
            self.lost = True
            with self._changed:
                self._pending.clear()
                self._fresh.extend(outcome.delivery for outcome in outcomes)
                self._changed.notify_all()
            wait_until(lambda: any(job.again for job in subject._ledger.held()))
            return [False] * len(outcomes)

    streams = GroupLost()
    subject = pipeline(streams, make_watch)
    with running(subject):
        entry = streams.push("line1", *fields())
        wait_until(lambda: [outcome.delivery.entry for outcome in streams.ended] == [entry])


def test_a_stage_that_breaks_ends_the_run_with_its_error(make_watch: MakeWatch) -> None:
    class Nonsense(ConstantPredictor):
        def predict(self, images: U8) -> RawBatch:
            raw = super().predict(images)
            return RawBatch(raw.scores, raw.maps[:0])  # breaks the predictor's own promise

    streams = MemoryStreams()
    streams.push("line1", *fields())
    subject = pipeline(streams, make_watch, Nonsense())
    with pytest.raises(IndexError):
        subject.run()
    assert not subject.healthy
    assert not streams.ended
    assert not streams.released  # the frame is to come back as a suspect


def test_metrics_tell_what_happened(make_watch: MakeWatch) -> None:
    streams = MemoryStreams()
    streams.push("line1", *fields(20))
    streams.push("line1", *fields(230))
    streams.push("line2", b"\xc1", b"")
    metrics = Metrics()
    watches = [make_watch("line1"), make_watch("line2")]
    Pipeline(streams, streams, watches, config(), metrics).run(burst=True)
    text = metrics.text().decode()
    assert 'engine_frames_total{camera="cam1",line="line1",outcome="good"} 1.0' in text
    assert 'engine_frames_total{camera="cam1",line="line1",outcome="reject"} 1.0' in text
    assert 'engine_frames_total{camera="",line="line2",outcome="contract"} 1.0' in text
    assert 'engine_stage_seconds_count{line="line1",stage="total"} 2.0' in text


def test_unpacked_meta_is_what_a_producer_sent() -> None:
    assert msgpack.unpackb(fields(20)[0])["shape"] == [32, 32, 3]


class Screener(Recorder):
    """A cascade: frames of an even brightness of at least 100 are not settled by its first member."""

    def __init__(self, poison: int | None = None) -> None:
        super().__init__(poison)
        self.completed: list[list[int]] = []

    def screen(self, images: U8) -> Screening:
        raw = super().predict(images)
        levels = images[:, 0, 0, 0]
        return Screening(RawBatch(raw.scores, raw.maps, {"first": raw.scores}), (levels < 100) | (levels % 2 == 1))

    def complete(self, images: U8, first: RawBatch) -> RawBatch:
        levels = images[:, 0, 0, 0]
        self.completed.append([int(level) for level in levels])
        if self.poison in levels:
            raise BackendError("poisoned")
        np.testing.assert_allclose(first.scores, levels / 255, rtol=1e-6)
        np.testing.assert_allclose(first.maps[:, 0, 0], levels / 255, rtol=1e-6)
        return RawBatch(first.scores + 1, first.maps + 1, {**first.members, "second": first.scores + 1})


def cascade_of(make_watch: MakeWatch, screener: Screener, calibration: Calibration) -> Watch:
    members = {"first": calibration, "second": calibration}
    return make_watch("line1", screener, members=members, cascade=screener)


def test_a_cascade_completes_what_the_first_member_does_not_settle(
    make_watch: MakeWatch, calibration: Calibration
) -> None:
    streams, screener = MemoryStreams(), Screener()
    levels = {streams.push("line1", *fields(level)): level for level in [20, 120, 33, 140, 160, 135, 200, 44] * 8}
    watch = cascade_of(make_watch, screener, calibration)
    batch = settings.Batch(max_size=8, max_wait_ms=1000)
    Pipeline(streams, streams, [watch], config(batch=batch), Metrics()).run(burst=True)
    assert len(streams.ended) == 64
    for outcome in streams.ended:
        level = levels[outcome.result.frame]
        whole = level in (120, 140, 160, 200)
        assert outcome.result.raw_score == pytest.approx(level / 255 + whole)
        assert set(outcome.result.scores) == ({"first", "second"} if whole else {"first"})
    assert sorted(level for batch in screener.completed for level in batch) == sorted([120, 140, 160, 200] * 8)
    assert len(screener.completed) <= 8  # 32 frames: batched again, not run one by one


def test_a_frame_that_the_rest_of_a_cascade_fails_on_is_found(make_watch: MakeWatch, calibration: Calibration) -> None:
    streams = MemoryStreams()
    entries = [streams.push("line1", *fields(level)) for level in (20, 120, 140, 160)]
    watch = cascade_of(make_watch, Screener(poison=140), calibration)
    Pipeline(streams, streams, [watch], config(), Metrics()).run(burst=True)
    ends = {outcome.delivery.entry: outcome for outcome in streams.ended}
    assert [entry for entry in entries if ends[entry].result is None] == [entries[2]]
    assert ends[entries[2]].dead.type == "inference"


def test_a_suspect_is_alone_in_both_steps_of_a_cascade(make_watch: MakeWatch, calibration: Calibration) -> None:
    streams, screener = MemoryStreams(), Screener()
    for _ in range(6):
        streams.push("line1", *fields(120), deliveries=2)
    Pipeline(streams, streams, [cascade_of(make_watch, screener, calibration)], config(), Metrics()).run(burst=True)
    assert screener.batches == screener.completed == [[120]] * 6


def test_lines_with_other_limits_do_not_share_the_batches_of_a_cascade(
    make_watch: MakeWatch, calibration: Calibration
) -> None:
    streams, screeners = MemoryStreams(), (Screener(), Screener())
    members = {"first": calibration, "second": calibration}
    watches = [
        make_watch(line, screeners[0], members=members, cascade=screener)
        for line, screener in zip(("line1", "line2"), screeners, strict=True)
    ]
    for level, line in ((120, "line1"), (122, "line2")) * 3:
        streams.push(line, *fields(level))
    Pipeline(streams, streams, watches, config(), Metrics()).run(burst=True)
    for screener, level in zip(screeners, (120, 122), strict=True):
        assert {level} == {each for batch in screener.completed for each in batch}
    assert len(streams.ended) == 6
