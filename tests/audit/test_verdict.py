"""The arithmetic of an audit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.audit.verdict import Counts, Ends, by_counts, by_entries, order


@pytest.mark.parametrize(
    ("counts", "wrong"),
    [
        (Counts(frames=10, waiting=2, results=7, dead=1), (0, 0)),
        (Counts(frames=10, waiting=0, results=7, dead=1), (2, 0)),
        (Counts(frames=10, waiting=2, results=10, dead=1), (0, 3)),
        (Counts(frames=0, waiting=0, results=0, dead=0), (0, 0)),
    ],
)
def test_counts_must_add_up(counts, wrong):
    found = by_counts(counts)
    assert (found.missing, found.double) == wrong
    assert found.holds == (wrong == (0, 0))
    assert found.how == "counts"


def test_every_frame_is_told_apart():
    ends = Ends({"2-0": 1, "3-0": 2, "9-9": 1}, {"4-0": 1, "5-0": 1}, [])
    found = by_entries("journal", ["1-0", "2-0", "3-0", "4-0", "6-0"], ends, {"6-0", "2-0"})
    assert (found.frames, found.results, found.dead, found.waiting) == (5, 2, 1, 1)
    assert (found.missing, found.double, found.unverifiable) == (1, 1, 0)
    assert found.named == {"missing": ("1-0",), "double": ("3-0",)}
    assert not found.holds


def test_a_result_beside_a_dead_letter_is_double():
    found = by_entries("journal", ["1-0"], Ends({"1-0": 1}, {"1-0": 1}), set())
    assert (found.double, found.missing) == (1, 0)


def test_what_was_trimmed_cannot_be_verified():
    """Ends are published after their frames were added: younger frames than the oldest end that is left are missing."""
    found = by_entries("kept frames", ["99-0", "100-1", "1000-0"], Ends({}, {}, ["100-1"]), set())
    assert found.named == {"missing": ("100-1", "1000-0"), "unverifiable": ("99-0",)}
    assert by_entries("journal", ["99-0"], Ends({}, {}, [""]), set()).unverifiable == 1
    assert by_entries("journal", ["99-0"], Ends({}, {}, ["50-0", "100-0"]), set()).unverifiable == 1


def test_a_frame_that_is_named_twice_counts_once():
    assert by_entries("journal", ["1-0", "1-0"], Ends({"1-0": 1}, {}), set()).frames == 1


def test_many_wrong_ones_are_counted_and_some_named():
    found = by_entries("journal", [f"{i}-0" for i in range(1, 101)], Ends({}, {}), set())
    assert (found.missing, len(found.named["missing"])) == (100, 20)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()), max_size=30))
def test_every_frame_is_in_one_place(frames):
    """Each frame: how often a result, how often a dead letter, whether it was waiting."""
    entries = [f"{i + 1}-0" for i in range(len(frames))]
    results = {e: r for e, (r, _, _) in zip(entries, frames, strict=True) if r}
    dead = {e: d for e, (_, d, _) in zip(entries, frames, strict=True) if d}
    waiting = {e for e, (_, _, w) in zip(entries, frames, strict=True) if w}
    found = by_entries("journal", entries, Ends(results, dead), waiting)
    once = sum(r + d == 1 for r, d, _ in frames)
    assert found.double == sum(r + d > 1 for r, d, _ in frames)
    assert found.missing == sum(r + d == 0 and not w for r, d, w in frames)
    assert once + found.double + found.missing + found.waiting == len(frames)


def test_ids_are_ordered_as_numbers():
    assert sorted(["10-0", "9-11", "9-2"], key=order) == ["9-2", "9-11", "10-0"]
