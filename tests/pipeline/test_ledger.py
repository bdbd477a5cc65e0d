"""What a process may hold: rooms reckoned from what was seen, and the worst that one read may bring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from engine.pipeline import Watch
from engine.pipeline.job import Job
from engine.pipeline.ledger import Ledger
from engine.sheet import Sheet
from engine.types import Delivery

MB = 1 << 20


def job(watch: Watch, number: int, size_bytes: int) -> Job:
    return Job(Delivery(watch.line, f"0-{number}", 1, b"", bytes(size_bytes)), watch, 0.0)


def test_the_room_is_reckoned_from_the_largest_recent_frame(make_watch: Callable[..., Watch]) -> None:
    watch = make_watch(sheet=Sheet(((1, 1),)))
    ledger = Ledger(max_frames=100, max_bytes=10 * MB, largest_bytes=MB)
    assert ledger.room() == 10
    small = [job(watch, number, 1000) for number in range(300)]
    for each in small:
        ledger.admit([each])
        ledger.end([each])
    assert ledger.room() == 100
    large = job(watch, 300, MB)
    ledger.admit([large])
    assert ledger.room() == 8


def test_a_read_after_many_small_frames_cannot_bring_gigabytes(make_watch: Callable[..., Watch]) -> None:
    watch = make_watch(sheet=Sheet(((1, 1),)))
    ledger = Ledger(max_frames=1000, max_bytes=256 * MB, largest_bytes=32 * MB)
    for number in range(1000):
        each = job(watch, number, 1000)
        ledger.admit([each])
        ledger.end([each])
    assert ledger.room() == 32


def test_one_frame_always_fits(make_watch: Callable[..., Watch]) -> None:
    ledger = Ledger(max_frames=8, max_bytes=1000, largest_bytes=1 << 31)
    assert ledger.room() == 1
    ledger.admit([job(make_watch(), 1, 5000)])
    assert ledger.room() == 0


def test_what_a_job_holds_is_charged_again_when_its_result_stands(make_watch: Callable[..., Watch]) -> None:
    watch = make_watch(sheet=Sheet(((10, 10),)))
    ledger = Ledger(max_frames=8, max_bytes=10 * MB, largest_bytes=MB)
    each = job(watch, 1, MB)
    ledger.admit([each])
    assert ledger.load() == (1, MB + 700)
    each.delivery = replace(each.delivery, data=None)
    each.pictures = {"pred_mask": bytes(5000)}
    ledger.charge_again(each)
    assert ledger.load() == (1, 5000)
    ledger.end([each])
    ledger.charge_again(each)
    assert ledger.load() == (0, 0)
