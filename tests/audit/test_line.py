"""Audits of lines on a real server: whole ones, and such that somebody spoiled."""

from __future__ import annotations

import pytest

from engine.audit import audit
from engine.config import Redis
from engine.errors import StreamError, UsageError
from engine.streams.keys import GROUP, line_keys
from engine.streams.link import Link


@pytest.fixture
def look(line, tmp_path):
    """Audit the line, by a journal of these entries where they are given."""
    link = Link(Redis(url=line.url, prefix=line.prefix), None, "test")

    def look(entries=None):
        journal = None
        if entries is not None:
            journal = tmp_path / "journal.tsv"
            journal.write_text("".join(f"{entry}\tframe-{i}\n" for i, entry in enumerate(entries)))
        return audit(link, line.keys, journal)

    yield look
    link.close()


@pytest.fixture
def done(line, make_config, run_burst):
    """Push frames, every third of them broken, and let the line work until none is left."""

    def done(count, **keys):
        entries = [line.push(data=b"no picture") if i % 3 == 0 else line.push() for i in range(count)]
        run_burst(make_config(line, **keys))
        return entries

    return done


def numbers(verdict):
    return (verdict.frames, verdict.results, verdict.dead, verdict.waiting)


def wrong(verdict):
    return (verdict.missing, verdict.double, verdict.unverifiable)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("journal", [False, True])
def test_a_whole_line_holds(look, done, line, keep, journal):
    entries = done(9, keep_frames=keep)
    entries += [line.push() for _ in range(4)]
    found = look(entries if journal else None)
    assert found.how == ("journal" if journal else "kept frames" if keep else "counts")
    assert numbers(found) == (13, 6, 3, 4)
    assert found.holds


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("journal", [False, True])
def test_a_lost_result_is_missed(look, done, line, keep, journal):
    entries = done(9, keep_frames=keep)
    ((victim, _),) = line.client.xrange(line.keys.results, count=1)
    line.client.xdel(line.keys.results, victim)
    if not (keep or journal):  # the count of what was ever added does not see it: nothing but the result is gone
        assert look().holds
        return
    found = look(entries if journal else None)
    assert wrong(found)[1:] == (0, 0) or wrong(found) == (0, 0, 1)
    assert found.missing + found.unverifiable == 1
    assert not found.holds


def test_a_frame_that_was_deleted_is_missed_by_counts(look, done, line):
    done(6)
    entry = line.push()
    assert look().waiting == 1
    line.client.xdel(line.keys.frames, entry)
    assert wrong(look()) == (1, 0, 0)


def test_a_frame_that_was_deleted_is_missed_by_the_journal(look, done, line):
    entries = [*done(6), line.push()]
    line.client.xdel(line.keys.frames, entries[-1])
    found = look(entries)
    assert wrong(found) == (1, 0, 0)
    assert found.named == {"missing": (entries[-1],)}


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("journal", [False, True])
def test_a_doubled_result_is_seen(look, done, line, keep, journal):
    entries = done(9, keep_frames=keep)
    ((_, fields),) = line.client.xrange(line.keys.results, count=1)
    line.client.xadd(line.keys.results, fields)
    assert wrong(look(entries if journal else None)) == (0, 1, 0)


@pytest.mark.parametrize("keep", [False, True])
def test_results_that_were_trimmed_leave_their_frames_unverifiable(look, done, line, keep):
    entries = done(9, keep_frames=keep)
    line.client.xtrim(line.keys.results, maxlen=2, approximate=False)
    found = look(entries)
    assert found.unverifiable + found.missing == 4
    assert found.unverifiable > 0
    line.client.xtrim(line.keys.results, maxlen=0, approximate=False)
    assert look(entries).unverifiable == 6
    if not keep:
        assert look().holds  # counts need no results, only how many there have been


@pytest.mark.parametrize("keep", [False, True])
def test_pending_frames_wait(look, done, line, keep):
    entries = done(3, keep_frames=keep) + [line.push() for _ in range(3)]
    line.client.xreadgroup(GROUP, "someone", {line.keys.frames: ">"}, count=2)
    assert look().waiting == look(entries).waiting == 3
    assert look().holds


def test_kept_frames_without_their_group_wait(look, done, line):
    """A group that was destroyed is created again, and goes on where it was."""
    done(3, keep_frames=True)
    line.push()
    line.client.xgroup_destroy(line.keys.frames, GROUP)
    found = look()
    assert (found.waiting, found.holds) == (1, True)


def test_a_journal_says_nothing_of_other_producers(look, done):
    entries = done(6)
    found = look(entries[::2])
    assert (found.frames, found.holds) == (3, True)


def test_many_frames_are_read_page_by_page(look, line, make_config, run_burst):
    entries = [line.push() for _ in range(70)]
    run_burst(make_config(line, keep_frames=True))
    entries += [line.push() for _ in range(70)]
    assert numbers(look()) == (140, 70, 0, 70)
    assert numbers(look(entries)) == (140, 70, 0, 70)
    line.client.delete(line.keys.ended)  # as a line that does not keep its frames: they are looked for by id
    assert look(entries).waiting == 70


def test_a_line_that_never_had_frames_is_refused(look):
    with pytest.raises(UsageError, match=r"frames: no such stream at unix:.*check --line"):
        look()


def test_a_key_of_another_kind_is_said(look, done, line):
    done(3)
    line.client.delete(line.keys.results)
    line.client.set(line.keys.results, "x")
    with pytest.raises(StreamError, match="WRONGTYPE"):
        look()


@pytest.mark.parametrize("text", ["1-0 without a tab\n", "gone\ta\n", "\x00\xff"])
def test_a_file_that_is_no_journal_is_refused(look, done, line, tmp_path, text):
    done(3)
    path = tmp_path / "other"
    path.write_bytes(text.encode("latin-1"))
    link = Link(Redis(url=line.url), None, "test")
    with pytest.raises(UsageError, match="other"):
        audit(link, line_keys(line.prefix, line.name), path)
    with pytest.raises(UsageError, match="gone cannot be read"):
        audit(link, line_keys(line.prefix, line.name), tmp_path / "gone")
    link.close()
