"""Source and sink against a real server, one promise of the delivery contract at a time."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import redis

from engine import config as settings
from engine.codec import encode_frame
from engine.config import Config
from engine.errors import StreamError
from engine.streams.base import Outcome
from engine.streams.embedded import EmbeddedServer
from engine.streams.keys import GROUP, line_keys
from engine.streams.link import Link
from engine.streams.redis import RedisSink, RedisSource, Streams
from engine.types import DeadLetter, Delivery, Frame, Result

IDLE_MS = 60_000  # never reached by waiting: tests make entries idle
LETTER = DeadLetter("decode", "broken", "m@1", 1, "c", 1)


def result(frame: str) -> Result:
    values = dict.fromkeys(Result.__slots__) | {"frame": frame, "id": frame, "camera": "c", "ts_ns": 1, "model": "m@1"}
    return Result(**{**values, "tags": {}, "scores": {}, "regions": (), "timing_ms": {}, "status": "ok"})


def good(delivery: Delivery) -> Outcome:
    return Outcome(delivery, result=result(delivery.entry))


Open = Callable[..., Streams]


@pytest.fixture
def open_streams(line: object, make_config: Callable[..., Config]) -> Iterator[Open]:
    """Streams of one line under a consumer name of choice."""
    opened = []

    def open_(*lines: object, consumer: str = "ours", url: str | None = None, **keys: object) -> Streams:
        chosen = lines or (line,)
        config = make_config(*chosen, **{"claim_idle_ms": IDLE_MS, **keys})
        link = Link(settings.Redis(url=url or config.redis.url), None, consumer)
        names = {each.name: line_keys(config.redis.prefix, each.name) for each in chosen}
        source = RedisSource(link, names, config.delivery, consumer)
        opened.append(Streams(source, RedisSink(link, names, config), link.place))
        return opened[-1]

    yield open_
    for streams in opened:
        streams.close()


def dead_consumer_reads(line: object, count: int, name: str = "dead") -> list[str]:
    """Deliver entries to a consumer that will do nothing with them."""
    with_group(line)
    ((_, entries),) = line.client.xreadgroup(GROUP, name, {line.keys.frames: ">"}, count=count)
    return [entry.decode() for entry, _ in entries]


def with_group(line: object) -> None:
    with suppress(redis.ResponseError):  # it may be there already
        line.client.xgroup_create(line.keys.frames, GROUP, "0", mkstream=True)


def make_idle(line: object) -> None:
    """Let all that is pending look as if its consumers had been silent for longer than they may."""
    for row in line.client.xpending_range(line.keys.frames, GROUP, "-", "+", 100):
        entry, consumer, count = row["message_id"], row["consumer"], row["times_delivered"]
        line.client.xclaim(
            line.keys.frames, GROUP, consumer, 0, [entry], idle=2 * IDLE_MS, retrycount=count, justid=True
        )


def suspect(source: RedisSource) -> Delivery | None:
    """What a claim into an empty pipeline gives: the first call finds out that there is something."""
    source.claim(10, alone=True)
    claim = source.claim(10, alone=True)
    return claim.deliveries[0] if claim.deliveries else None


def test_frames_queued_before_the_first_start_are_read(line, open_streams: Open) -> None:
    entries = [line.push() for _ in range(5)]
    source = open_streams().source
    first = source.read(3, 0)
    assert [delivery.entry for delivery in first + source.read(3, 0)] == entries
    assert source.read(3, 0) == []
    assert first[0].deliveries == 1
    assert first[0].line == "line1"
    assert first[0].data == line.client.xrange(line.keys.frames)[0][1][b"data"]


def test_a_blocking_read_ends_when_a_frame_comes(line, open_streams: Open) -> None:
    source = open_streams().source
    assert source.read(1, 0) == []
    threading.Timer(0.1, line.push).start()
    started_s = time.monotonic()
    assert len(source.read(1, 5000)) == 1
    assert time.monotonic() - started_s < 2


def test_missing_fields_are_told_from_trimmed_entries(line, open_streams: Open) -> None:
    line.client.xadd(line.keys.frames, {"data": b"d"})
    line.client.xadd(line.keys.frames, {"meta": b"m", "other": b"o"})
    first, second = open_streams().source.read(10, 0)
    assert (first.meta, first.data) == (b"", b"d")
    assert (second.meta, second.data) == (b"m", None)


def test_a_frame_ends_once(line, open_streams: Open) -> None:
    line.push()
    streams = open_streams()
    (delivery,) = streams.source.read(1, 0)
    assert streams.sink.publish([good(delivery), good(delivery)]) == [True, False]
    assert streams.sink.publish([Outcome(delivery, dead=LETTER)]) == [False]
    assert [r.frame for r in line.results()] == [delivery.entry]
    assert (line.left(), line.pending(), line.dead()) == (0, {}, [])


def test_frames_are_kept_where_asked(line, open_streams: Open) -> None:
    line.push()
    streams = open_streams(keep_frames=True)
    (delivery,) = streams.source.read(1, 0)
    assert streams.sink.publish([good(delivery)]) == [True]
    assert (line.left(), line.pending()) == (1, {})


def marks(line) -> int:
    return line.client.zcard(line.keys.ended)


def lose_group(line) -> None:
    with_group(line)
    line.client.xgroup_destroy(line.keys.frames, GROUP)


def test_kept_frames_that_have_ended_do_not_come_again_with_a_new_group(line, open_streams: Open) -> None:
    for _ in range(5):
        line.push()
    streams = open_streams(keep_frames=True)
    assert all(streams.sink.publish([good(delivery) for delivery in streams.source.read(5, 0)]))
    lose_group(line)
    fresh = line.push()
    found = streams.source.read(10, 0) or streams.source.read(10, 0)
    assert [delivery.entry for delivery in found] == [fresh]


def test_kept_frames_that_ended_out_of_order_end_once(line, open_streams: Open) -> None:
    """The second and the fourth frame have ended when the group is lost, the others have not."""
    entries = [line.push() for _ in range(5)]
    streams = open_streams(keep_frames=True)
    held = streams.source.read(5, 0)
    assert streams.sink.publish([good(held[1]), good(held[3])]) == [True, True]
    lose_group(line)
    streams.source.read(1, 0)
    endings = {}
    while found := streams.source.read(1, 0):
        endings[found[0].entry] = streams.sink.publish([good(found[0])])[0]
    assert endings == dict(zip(entries, (True, False, True, False, True), strict=True))
    assert line.ends() == sorted(entries)
    assert (line.pending(), marks(line)) == ({}, 1)


def test_marks_of_kept_frames_are_as_few_as_ended_out_of_order(line, open_streams: Open) -> None:
    for _ in range(300):
        line.push_fields({"meta": b"", "data": b""})
    streams = open_streams(keep_frames=True)
    held = streams.source.read(300, 0)
    for i, delivery in enumerate(held[1:200]):
        streams.sink.publish([good(delivery)])
        assert marks(line) == i + 2  # and one for what was before them
    streams.sink.publish([good(held[0])])
    assert marks(line) == 1
    streams.sink.publish([good(delivery) for delivery in reversed(held[200:])])
    assert marks(line) == 1


@pytest.mark.parametrize("seed", range(6))
def test_kept_frames_end_once_whatever_happens_to_the_group(line, open_streams: Open, seed: int) -> None:
    chance = random.Random(seed)
    streams = open_streams(keep_frames=True)
    entries, held = [], []
    for _ in range(120):
        what = chance.random()
        if what < 0.4:
            entries.append(line.push_fields({"meta": b"", "data": b""}))
        elif what < 0.7:
            held += streams.source.read(chance.randint(1, 4), 0)
        elif what < 0.95 and held:
            delivery = held.pop(chance.randrange(len(held)))
            outcome = good(delivery) if chance.random() < 0.7 else Outcome(delivery, dead=LETTER)
            streams.sink.publish([outcome])
        elif what >= 0.95:
            lose_group(line)
    streams.sink.publish([good(delivery) for delivery in held])
    while found := streams.source.read(10, 0) or streams.source.read(10, 0):
        streams.sink.publish([good(delivery) for delivery in found])
    assert line.ends() == sorted(entries)
    assert (line.left(), line.pending(), marks(line)) == (len(entries), {}, 1)


def test_marks_do_not_outlive_the_stream_they_are_about(line, open_streams: Open) -> None:
    line.push()
    streams = open_streams(keep_frames=True)
    streams.sink.publish([good(delivery) for delivery in streams.source.read(1, 0)])
    line.client.delete(line.keys.frames)
    entry = line.client.xadd(line.keys.frames, {"meta": b""}, id="1-1").decode()  # a clock that was set back
    found = streams.source.read(1, 0) or streams.source.read(1, 0)
    assert [delivery.entry for delivery in found] == [entry]
    assert streams.sink.publish([good(found[0])]) == [True]


def test_kept_frames_stay_ended_when_frames_are_no_longer_kept(line, open_streams: Open) -> None:
    line.push()
    keeping, deleting = open_streams(keep_frames=True), open_streams(keep_frames=False)
    keeping.sink.publish([good(delivery) for delivery in keeping.source.read(1, 0)])
    later = [line.push() for _ in range(2)]
    deleting.sink.publish([good(delivery) for delivery in deleting.source.read(1, 0)])
    lose_group(line)
    found = deleting.source.read(5, 0) or deleting.source.read(5, 0)
    assert [delivery.entry for delivery in found] == later[1:]
    assert line.left() == 2


def test_the_backlog_does_not_count_kept_frames_that_have_ended(line, open_streams: Open) -> None:
    for _ in range(5):
        line.push()
    streams = open_streams(keep_frames=True)
    assert streams.source.backlog() == {"line1": 5}
    held = streams.source.read(4, 0)
    streams.sink.publish([good(delivery) for delivery in held[:3]])
    assert streams.source.backlog() == {"line1": 2}
    assert line.left() == 5


def test_a_dead_letter_carries_the_frame(line, open_streams: Open) -> None:
    line.push_fields({"meta": b"\xc1", "data": b"junk"})
    streams = open_streams()
    (delivery,) = streams.source.read(1, 0)
    assert streams.sink.publish([Outcome(delivery, dead=LETTER)]) == [True]
    (dead,) = line.dead()
    assert (dead.frame, dead.line, dead.meta, dead.data, dead.letter) == (
        delivery.entry,
        "line1",
        b"\xc1",
        b"junk",
        LETTER,
    )


def test_outputs_are_trimmed_about_where_asked_and_zero_never_trims(line, open_streams: Open) -> None:
    for _ in range(600):
        line.push_fields({"meta": b"", "data": b""})
    streams = open_streams(results_maxlen=100, dead_maxlen=0)
    deliveries = streams.source.read(600, 0)
    streams.sink.publish([good(d) for d in deliveries[:300]] + [Outcome(d, dead=LETTER) for d in deliveries[300:]])
    assert 100 <= len(line.results()) < 300
    assert len(line.dead()) == 300


def test_a_reply_that_was_lost_is_read_again(line, open_streams: Open) -> None:
    """What the server delivered to us without our knowing: the first read of a source drains it."""
    entries = [line.push() for _ in range(7)]
    dead_consumer_reads(line, 5, name="ours")
    source = open_streams(consumer="ours").source
    seen = []
    while found := source.read(2, 0):
        seen += [(delivery.entry, delivery.deliveries) for delivery in found]
    assert seen == [(entry, 1) for entry in entries]


def test_a_broken_connection_makes_the_next_read_drain(line, open_streams: Open) -> None:
    source = open_streams(consumer="ours").source
    assert source.read(1, 0) == []
    line.push()
    dead_consumer_reads(line, 1, name="ours")
    assert source.read(1, 0) == []
    thread = threading.Timer(0.1, lambda: [line.client.client_kill_filter(_id=c["id"]) for c in blocked(line)])
    thread.start()
    with pytest.raises(StreamError):
        source.read(1, 3000)
    thread.join()
    assert len(source.read(1, 0)) == 1


def blocked(line) -> list[dict[str, str]]:
    return [client for client in line.client.client_list() if "b" in client["flags"]]


def test_idle_entries_are_claimed_one_at_a_time_and_only_into_an_empty_pipeline(line, open_streams: Open) -> None:
    entries = [line.push() for _ in range(3)]
    dead_consumer_reads(line, 3)
    source = open_streams().source
    assert source.claim(10, alone=True) == source.claim(10, alone=True)  # nothing is idle yet
    make_idle(line)
    busy = source.claim(10, alone=False)
    assert (busy.deliveries, busy.waiting) == ([], True)
    claimed = source.claim(10, alone=True)
    assert [(d.entry, d.deliveries, d.suspect) for d in claimed.deliveries] == [(entries[0], 2, True)]
    assert claimed.waiting
    assert line.pending() == dict(zip(entries, (2, 1, 1), strict=True))


def test_an_entry_is_claimed_by_one_of_many(line, open_streams: Open) -> None:
    line.push()
    dead_consumer_reads(line, 1)
    make_idle(line)
    found = [suspect(open_streams(consumer=f"c{i}").source) for i in range(3)]
    assert [each is not None for each in found] == [True, False, False]


def test_an_exhausted_entry_is_reported_as_one_more_and_keeps_its_count(line, open_streams: Open) -> None:
    entry = line.push()
    dead_consumer_reads(line, 1)
    line.client.xclaim(line.keys.frames, GROUP, "dead", 0, [entry], retrycount=3, idle=2 * IDLE_MS)
    claim = open_streams(max_deliveries=3).source.claim(10, alone=False)
    assert [(d.entry, d.deliveries) for d in claim.deliveries] == [(entry, 4)]
    assert not claim.waiting
    assert line.pending() == {entry: 3}


def test_what_was_handed_back_goes_to_another_at_once_and_fresh(line, open_streams: Open) -> None:
    entries = [line.push() for _ in range(3)]
    first = open_streams(consumer="first").source
    held = first.read(3, 0)
    first.release(held[1:])
    second = open_streams(consumer="second").source
    claim = second.claim(10, alone=False)
    assert [(d.entry, d.deliveries) for d in claim.deliveries] == [(entry, 1) for entry in entries[1:]]
    assert not claim.waiting
    assert first.renew(held) == held[1:]


def test_a_suspect_that_was_handed_back_stays_a_suspect(line, open_streams: Open) -> None:
    line.push()
    dead_consumer_reads(line, 1)
    make_idle(line)
    first = open_streams(consumer="first").source
    delivery = suspect(first)
    assert delivery.deliveries == 2
    first.release([delivery])
    again = suspect(open_streams(consumer="second").source)
    assert (again.entry, again.deliveries) == (delivery.entry, 2)


def test_a_suspect_never_comes_with_fresh_entries(line, open_streams: Open) -> None:
    entries = [line.push() for _ in range(3)]
    first = open_streams(consumer="first").source
    held = first.read(3, 0)
    make_idle(line)
    first.renew([held[0], held[2]])
    second = open_streams(consumer="second").source
    assert second.claim(10, alone=True).waiting
    first.release([held[0], held[2]])
    fresh = second.claim(10, alone=True)
    assert [(d.entry, d.suspect) for d in fresh.deliveries] == [(entries[0], False), (entries[2], False)]
    assert fresh.waiting
    alone = second.claim(10, alone=True)
    assert [(d.entry, d.suspect) for d in alone.deliveries] == [(entries[1], True)]


def test_renewing_keeps_a_claim_and_its_count(line, open_streams: Open) -> None:
    line.push()
    ours, theirs = open_streams(consumer="ours").source, open_streams(consumer="theirs").source
    held = ours.read(1, 0)
    for _ in range(3):
        make_idle(line)
        assert ours.renew(held) == []
    assert suspect(theirs) is None
    assert line.pending() == {held[0].entry: 1}
    make_idle(line)
    assert suspect(theirs) is not None
    assert ours.renew(held) == held


def test_an_entry_trimmed_while_pending_is_reported_until_it_is_buried(line, open_streams: Open) -> None:
    entry = line.push()
    dead_consumer_reads(line, 1)
    make_idle(line)
    line.client.xtrim(line.keys.frames, maxlen=0, approximate=False)
    streams = [open_streams(consumer=f"c{i}") for i in range(2)]
    for each in streams * 2:
        (delivery,) = each.source.claim(10, alone=False).deliveries
        assert (delivery.entry, delivery.meta, delivery.data, delivery.deliveries) == (entry, None, None, 1)
        assert line.pending() == {entry: 1}  # still there, should this process die now
    endings = [each.sink.publish([Outcome(delivery, dead=LETTER)])[0] for each in streams]
    assert endings == [True, False]
    assert len(line.dead()) == 1
    assert streams[0].source.claim(10, alone=False).deliveries == []


def test_renewing_and_handing_back_do_not_forget_a_trimmed_entry(line, open_streams: Open) -> None:
    entry = line.push()
    streams = open_streams()
    held = streams.source.read(1, 0)
    line.client.xdel(line.keys.frames, entry)
    assert streams.source.renew(held) == []
    streams.source.release(held)
    assert line.pending() == {entry: 1}
    assert streams.sink.publish([good(held[0])]) == [True]  # the picture was in memory: a result after all


@pytest.mark.parametrize("destroy", ["group", "stream"])
def test_a_lost_group_is_created_again_from_the_beginning(line, open_streams: Open, destroy: str) -> None:
    entries = [line.push() for _ in range(3)]
    streams = open_streams()
    held = streams.source.read(2, 0)
    if destroy == "group":
        line.client.xgroup_destroy(line.keys.frames, GROUP)
    else:
        line.client.delete(line.keys.frames)
        entries = [line.push()]
    assert streams.sink.publish([good(held[0])]) == [False]
    again = streams.source.read(10, 0)
    assert [delivery.entry for delivery in again] == entries
    assert all(streams.sink.publish([good(delivery) for delivery in again]))
    assert sorted(r.frame for r in line.results()) == sorted(entries)


@pytest.mark.parametrize("call", ["read", "claim", "renew", "tend", "release"])
def test_every_call_survives_a_lost_group(line, open_streams: Open, call: str) -> None:
    line.push()
    source = open_streams().source
    held = source.read(1, 0)
    line.client.xgroup_destroy(line.keys.frames, GROUP)
    calls = {
        "read": lambda: source.read(1, 0),
        "claim": lambda: source.claim(1, alone=False),
        "renew": lambda: source.renew(held),
        "tend": source.tend,
        "release": lambda: source.release(held),
    }
    calls[call]()
    assert (source.read(1, 0) + source.read(1, 0))[0].entry == held[0].entry


def test_a_refused_publish_leaves_the_frame_pending_and_the_others_alone(line, open_streams: Open) -> None:
    other = line.beside("line2")
    entries = [line.push(), other.push()]
    line.client.set(line.keys.results, "not a stream")
    streams = open_streams(line, other)
    deliveries = sorted(streams.source.read(10, 0), key=lambda delivery: delivery.line)
    refused, ended = streams.sink.publish([good(delivery) for delivery in deliveries])
    assert isinstance(refused, StreamError)
    assert "WRONGTYPE" in str(refused)
    assert ended is True
    assert (line.pending(), line.left()) == ({entries[0]: 1}, 1)
    line.client.delete(line.keys.results)
    assert streams.sink.publish([good(deliveries[0])]) == [True]


@pytest.mark.parametrize("denied", ["-xadd", "-xack", "-xdel", "-zadd", "-zremrangebylex"])
def test_a_right_that_is_missing_publishes_nothing(line, open_streams: Open, denied: str) -> None:
    line.client.acl_setuser("limited", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all"])
    entry = line.push()
    keep = denied.startswith("-z")
    streams = open_streams(keep_frames=keep, url=line.url.replace("unix://", "unix://limited:pw@"))
    (delivery,) = streams.source.read(1, 0)
    line.client.execute_command("ACL", "SETUSER", "limited", denied)
    (ending,) = streams.sink.publish([good(delivery)])
    assert isinstance(ending, StreamError)
    assert (line.results(), line.pending()) == ([], {entry: 1})
    line.client.execute_command("ACL", "SETUSER", "limited", "+@all")
    assert streams.sink.publish([good(delivery)]) == [True]
    assert len(line.results()) == 1


def test_it_works_at_maxmemory(make_line, make_config, open_streams: Open) -> None:
    with EmbeddedServer(maxmemory_bytes=8 << 20) as small:
        line = make_line(small)
        pushed = []
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            while True:
                pushed.append(line.push_fields({"meta": b"m", "data": bytes(100_000)}))
        streams = open_streams(line)
        while deliveries := streams.source.read(5, 0):
            assert all(streams.sink.publish([good(delivery) for delivery in deliveries]))
        assert sorted(r.frame for r in line.results()) == sorted(pushed)
        streams.close()


def test_trimming_counts_what_was_never_read_and_spares_what_is_held(line, open_streams: Open) -> None:
    entries = [line.push() for _ in range(20)]
    source = open_streams(frames_maxlen=10).source
    held = source.read(4, 0)
    assert source.tend() == {"line1": 10}
    left = [entry.decode() for entry, _ in line.client.xrange(line.keys.frames)]
    assert left == entries[:4] + entries[14:]
    assert source.tend() == {}
    assert source.renew(held) == []


def test_kept_frames_are_trimmed_without_being_counted(line, open_streams: Open) -> None:
    entries = [line.push() for _ in range(12)]
    streams = open_streams(frames_maxlen=5, keep_frames=True)
    streams.sink.publish([good(delivery) for delivery in streams.source.read(12, 0)])
    assert streams.source.tend() == {}
    assert [entry.decode() for entry, _ in line.client.xrange(line.keys.frames)] == entries[-5:]


def test_trimming_gives_way_to_what_is_held(line, open_streams: Open) -> None:
    for _ in range(8):
        line.push()
    source = open_streams(frames_maxlen=3).source
    source.read(8, 0)
    assert source.tend() == {}
    assert line.left() == 8


def consumers(line) -> set[str]:
    return {row["name"].decode() for row in line.client.xinfo_consumers(line.keys.frames, GROUP)}


def test_only_consumers_without_anything_pending_are_removed(
    line, open_streams: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.streams.source._SWEEP_S", 0.0)
    line.push()
    line.push()
    dead_consumer_reads(line, 1, name="dead with a frame")
    line.client.xgroup_createconsumer(line.keys.frames, GROUP, "dead with none")
    source = open_streams().source
    source.tend()
    assert consumers(line) == {"dead with a frame", "dead with none"}  # neither is idle yet
    time.sleep(0.03)
    source = open_streams(claim_idle_ms=20).source
    source.read(1, 0)
    source.tend()
    assert consumers(line) == {"dead with a frame", "ours"}
    source.close()
    assert consumers(line) == {"dead with a frame", "ours"}  # something is pending for us


def test_a_consumer_that_has_ended_everything_leaves(line, open_streams: Open) -> None:
    line.push()
    streams = open_streams()
    streams.sink.publish([good(delivery) for delivery in streams.source.read(1, 0)])
    assert consumers(line) == {"ours"}
    streams.close()
    assert consumers(line) == set()


def test_more_lines_than_room_take_turns(line, open_streams: Open) -> None:
    lines = [line.beside(f"l{i}") for i in range(7)]
    for each in lines:
        each.push()
    source = open_streams(*lines).source
    seen: list[str] = []
    for _ in range(10):
        found = source.read(2, 0)
        assert len(found) <= 2
        seen += [delivery.line for delivery in found]
    assert sorted(seen) == [f"l{i}" for i in range(7)]
    assert source.read(7, 0, skip={f"l{i}" for i in range(7)}) == []


def test_skipped_lines_are_not_read(line, open_streams: Open) -> None:
    other = line.beside("line2")
    line.push()
    other.push()
    source = open_streams(line, other).source
    assert [delivery.line for delivery in source.read(5, 0, skip={"line1"})] == ["line2"]
    assert source.backlog() == {"line1": 1, "line2": 1}


def test_the_clock_is_the_servers(line, open_streams: Open) -> None:
    source = open_streams().source
    source.claim(1, alone=False)
    seconds, microseconds = line.client.time()
    assert source.now_ms("line1") == pytest.approx(seconds * 1e3 + microseconds / 1e3, abs=50)
    entry = line.push_fields(encode_frame(Frame("c", 1, "png", b"")))
    assert source.now_ms("line1") - int(entry.partition("-")[0]) == pytest.approx(0, abs=50)
