"""The batching policy; time is a number here, nothing sleeps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.batcher import Batcher


def test_a_full_batch_is_ready_at_once() -> None:
    batcher: Batcher[str] = Batcher(max_size=3, max_wait_ms=5)
    for item in "abcd":
        batcher.add(item, "g", now_ms=0)
    assert batcher.take(0) == ["a", "b", "c"]
    assert batcher.take(0) is None


def test_the_deadline_counts_from_the_first_item() -> None:
    batcher: Batcher[str] = Batcher(max_size=3, max_wait_ms=5)
    batcher.add("a", "g", now_ms=10)
    batcher.add("b", "g", now_ms=14)
    assert batcher.due_ms() == 15
    assert batcher.take(14.9) is None
    assert batcher.take(15) == ["a", "b"]
    assert batcher.due_ms() is None


def test_flush_takes_what_there_is() -> None:
    batcher: Batcher[str] = Batcher(max_size=3, max_wait_ms=1000)
    batcher.add("a", "g", now_ms=0)
    assert batcher.take(0, flush=True) == ["a"]
    assert batcher.take(0, flush=True) is None


def test_groups_do_not_mix_and_the_oldest_goes_first() -> None:
    batcher: Batcher[str] = Batcher(max_size=2, max_wait_ms=5)
    batcher.add("a1", "a", now_ms=0)
    batcher.add("b1", "b", now_ms=1)
    batcher.add("b2", "b", now_ms=2)
    assert batcher.take(2) == ["b1", "b2"]  # the older one is not ready yet
    batcher.add("b3", "b", now_ms=3)
    assert batcher.take(9) == ["a1"]
    assert batcher.take(9) == ["b3"]


def test_a_suspect_runs_alone() -> None:
    batcher: Batcher[str] = Batcher(max_size=8, max_wait_ms=5)
    batcher.add("a", "g", now_ms=0)
    batcher.add("suspect", "g", now_ms=0, alone=True)
    batcher.add("b", "g", now_ms=0)
    assert batcher.take(0) == ["suspect"]
    assert batcher.take(5) == ["a", "b"]


def test_a_batch_that_is_late_takes_more_until_somebody_takes_it() -> None:
    batcher: Batcher[str] = Batcher(max_size=8, max_wait_ms=5)
    batcher.add("a", "g", now_ms=0)
    batcher.add("b", "g", now_ms=100)
    assert batcher.take(100) == ["a", "b"]


def test_no_waiting_with_a_deadline_of_zero() -> None:
    batcher: Batcher[str] = Batcher(max_size=8, max_wait_ms=0)
    batcher.add("a", "g", now_ms=7)
    assert batcher.take(7) == ["a"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 3), st.booleans()), max_size=60),
    st.integers(1, 5),
    st.integers(0, 10),
)
def test_nothing_is_lost_doubled_mixed_or_late(arrivals: list[tuple[str, float, bool]], size: int, wait: int) -> None:
    batcher: Batcher[tuple[str, int]] = Batcher(size, wait)
    now_ms, taken, came = 0.0, [], {}
    for i, (group, pause_ms, alone) in enumerate(arrivals):
        now_ms += pause_ms
        while (batch := batcher.take(now_ms)) is not None:
            taken.append(batch)
        batcher.add((group, i), group, now_ms, alone=alone)
        came[(group, i)] = now_ms
        while (batch := batcher.take(now_ms)) is not None:
            taken.append(batch)
        due_ms = batcher.due_ms()
        assert (due_ms is None) == (len(batcher) == 0)
        assert due_ms is None or due_ms > now_ms
    while (batch := batcher.take(now_ms, flush=True)) is not None:
        taken.append(batch)
    assert sorted(item for batch in taken for item in batch) == sorted(came)
    for batch in taken:
        assert len(batch) <= size
        assert len({group for group, _ in batch}) == 1
        assert len(batch) == 1 or not any(arrivals[i][2] for _, i in batch)
        assert came[batch[-1]] - came[batch[0]] <= wait
