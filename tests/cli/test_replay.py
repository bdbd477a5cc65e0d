"""`engine replay` as a person types it."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def arguments(line, tiny):
    here = ("--redis", line.url, "--prefix", line.prefix, "--backend", "onnx", "--threads", 1)
    return ("replay", "--line", line.name, "--bundle", tiny.path, *here)


def test_kept_frames_in_one_document(run, arguments, line, make_config, run_burst):
    entries = [line.push() for _ in range(3)]
    run_burst(make_config(line, keep_frames=True))
    status, stdout, stderr = run(*arguments, "--from", entries[1], "--json")
    assert status == 0, stderr
    document = json.loads(stdout)
    assert (document["line"], document["model"], document["frames"]) == ("line1-replay", "tiny@1", 2)
    assert [row["frame"] for row in document["rows"]] == entries[1:]
    assert sum(document["outcomes"].values()) == 2


def test_dead_letters_as_a_table(run, arguments, line, make_config, run_burst):
    line.push(data=b"no picture")
    run_burst(make_config(line))
    status, stdout, _ = run(*arguments, "--as", "other", "--type", "decode")
    assert status == 0
    assert "tiny@1 in line other" in stdout
    assert stdout.count("dead: decode") == 2
    assert len(line.beside("other").dead()) == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--as", "line1"], "--as: expected another line"),
        (["--from", "x"], "--from: expected an entry id"),
        (["--from", "-", "--type", "decode"], "--type: chooses among dead letters"),
        (["--type", "decoded"], "--type: expected one of decode, contract,"),
        (["--as", "a b"], "line[0].name"),
    ],
)
def test_wrong_usage_exits_2_with_one_line(run, arguments, more, said):
    status, stdout, stderr = run(*arguments, *more)
    assert (status, stdout) == (2, "")
    (said_line,) = [text for text in stderr.splitlines() if "error" in text]
    assert said in said_line
