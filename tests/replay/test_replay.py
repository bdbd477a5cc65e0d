"""Frames of the past through another bundle, on a real server."""

from __future__ import annotations

import numpy as np
import pytest

import engine
from engine import config as settings
from engine.audit import audit
from engine.config import Config, Redis, Runtime
from engine.errors import BundleError, UsageError
from engine.replay import Chosen, replay
from engine.streams.link import Link


@pytest.fixture
def again(line, tiny):
    """Replay the line by the small bundle into `line1-again`."""

    def again(chosen, name="line1-again", bundle=None, of=line.name, **delivery):
        config = Config(
            redis=Redis(url=line.url, prefix=line.prefix),
            line=(settings.Line(name=name, bundle=str(bundle or tiny.path)),),
            delivery=settings.Delivery(**delivery),
            runtime=Runtime(backend="onnx", threads=1),
        )
        return replay(config, of, chosen)

    return again


@pytest.fixture
def kept(line, make_config, run_burst):
    """Eight frames, every fourth one bright and so rejected, judged and kept."""
    entries = [line.push(200 if i % 4 == 3 else 20, id=f"part-{i}" if i % 2 else None) for i in range(8)]
    run_burst(make_config(line, keep_frames=True))
    return entries


def left(line):
    return {key: line.client.xlen(getattr(line.keys, key)) for key in ("frames", "results", "dead")}


def test_kept_frames_are_judged_by_the_other_bundle(again, kept, line, tiny):
    untouched = left(line)
    found = again(Chosen(kept=True))
    with engine.load(tiny.path, backend="onnx", threads=1) as model:
        grey = [np.full((32, 32, 3), 200 if i % 4 == 3 else 20, np.uint8) for i in range(8)]
        want = [result.decision for result in model.predict(grey)]
    assert [row.frame for row in found.rows] == kept
    assert [row.before for row in found.rows] == ["reject" if i % 4 == 3 else "good" for i in range(8)]
    assert [row.after for row in found.rows] == want
    assert (found.model, found.line, found.gone) == ("tiny@1", "line1-again", 0)
    assert left(line) == untouched
    results = {result.frame: result for result in line.beside("line1-again").results()}
    for i, row in enumerate(found.rows):
        assert results[row.replayed].id == (f"part-{i}" if i % 2 else row.frame)
        assert results[row.replayed].pred_score == row.score_after
        assert row.score_before is not None


def test_a_range_is_chosen_by_entry_ids(again, kept):
    found = again(Chosen(kept=True, first=kept[2], last=kept[4]))
    assert [row.frame for row in found.rows] == kept[2:5]
    assert again(Chosen(kept=True, first="1", last="2")).rows == ()


def test_dead_letters_get_another_chance(again, line, make_config, run_burst):
    """What was too large for the line is not for the replay; what is broken stays so; what is gone is counted."""
    large, broken = line.push(), line.push(data=b"no picture")
    other = line.push_fields({"meta": b"\x81", "data": b"x"})
    run_burst(make_config(line, max_pixels=1000))
    trimmed = line.push()
    line.client.xreadgroup("engine", "someone", {line.keys.frames: ">"})
    line.client.xtrim(line.keys.frames, maxlen=0, approximate=False)
    run_burst(make_config(line, claim_idle_ms=1))
    assert sorted(dead.letter.type for dead in line.dead()) == ["contract", "decode", "too_large", "trimmed"]
    assert trimmed in line.ends()
    found = again(Chosen())
    ends = {row.frame: (row.before, row.after) for row in found.rows}
    assert ends.pop(large)[1] in ("good", "reject")
    assert ends == {broken: ("dead: decode", "dead: decode"), other: ("dead: contract", "dead: contract")}
    assert found.gone == 1
    assert found.document()["outcomes"]["dead: decode"] == 1


def test_dead_letters_of_some_types_only(again, line, make_config, run_burst):
    line.push(data=b"no picture")
    small = line.push_fields({"meta": b"\x81", "data": b"x"})
    run_burst(make_config(line))
    assert [row.frame for row in again(Chosen(types=frozenset({"contract"}))).rows] == [small]
    assert again(Chosen(types=frozenset({"inference"}))).rows == ()


def test_many_frames_go_a_few_at_a_time_and_the_line_they_leave_holds(again, line, make_config, run_burst):
    entries = [line.push() for _ in range(150)]
    run_burst(make_config(line, keep_frames=True))
    found = again(Chosen(kept=True), keep_frames=True)
    assert [row.frame for row in found.rows] == entries
    assert {row.after for row in found.rows} <= {"good", "reject"}
    beside = line.beside("line1-again")
    assert beside.left() == 0
    link = Link(Redis(url=line.url), None, "test")
    verdict = audit(link, beside.keys, None)
    link.close()
    assert (verdict.frames, verdict.results, verdict.holds) == (150, 150, True)


def test_a_second_replay_tells_its_own_results(again, kept):
    first, second = again(Chosen(kept=True)), again(Chosen(kept=True))
    assert [row.after for row in second.rows] == [row.after for row in first.rows]
    assert not {row.replayed for row in first.rows} & {row.replayed for row in second.rows}


def test_frames_without_a_result_any_more_are_seen_all_the_same(again, kept, line):
    line.client.xtrim(line.keys.results, maxlen=0, approximate=False)
    found = again(Chosen(kept=True))
    assert {(row.before, row.score_before) for row in found.rows} == {(None, None)}
    assert all(row.after for row in found.rows)


def test_what_makes_no_sense_is_refused(again, kept, line, tmp_path):
    with pytest.raises(UsageError, match="--as: expected another line than line1"):
        again(Chosen(kept=True), name="line1")
    with pytest.raises(BundleError, match="no bundle here"):
        again(Chosen(kept=True), bundle=tmp_path)
    with pytest.raises(UsageError, match=r"--line: .* got lien1: there is no .*\{lien1\}:frames"):
        again(Chosen(kept=True), of="lien1")
    with pytest.raises(UsageError, match="--from: expected an entry id"):
        Chosen(kept=True, first="yesterday")
    with pytest.raises(UsageError, match="--type: chooses among dead letters"):
        Chosen(kept=True, types=frozenset({"decode"}))
    line.beside("line1-again").push()
    with pytest.raises(UsageError, match="1 frames wait there already"):
        again(Chosen(kept=True))
