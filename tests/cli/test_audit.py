"""`engine audit` as a person types it, after an `engine push`."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest


@pytest.fixture
def pushed(run, line, tmp_path):
    """A journal of four frames that were pushed into the line, and where the server is."""
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((32, 32, 3), 20, np.uint8))
    here = ("--redis", line.url, "--prefix", line.prefix)
    status, _, stderr = run(
        "push", tmp_path, "--line", line.name, "--camera", "c", *here, "--journal", tmp_path / "sent.tsv"
    )
    assert status == 0, stderr
    return tmp_path / "sent.tsv", here


def test_exit_0_while_all_is_well_and_1_from_the_first_missing_frame(run, pushed, line, make_config, run_burst):
    journal, here = pushed
    arguments = ("audit", "--line", line.name, *here, "--journal", journal)
    run_burst(make_config(line))
    status, stdout, stderr = run(*arguments, "--json")
    assert (status, stderr) == (0, "")
    document = json.loads(stdout)
    assert document["holds"]
    assert document["lines"][line.name]["results"] == 4
    with journal.open("a") as file:
        file.write(f"{line.push()}\tlost\n")
    line.client.xtrim(line.keys.frames, maxlen=0, approximate=False)
    status, stdout, _ = run(*arguments, "--json")
    assert status == 1
    found = json.loads(stdout)["lines"][line.name]
    assert (found["how"], found["missing"], len(found["named"]["missing"])) == ("journal", 1, 1)
    status, stdout, _ = run(*arguments)
    assert status == 1
    assert f"{line.name}: missing: {found['named']['missing'][0]}" in stdout


def test_a_configuration_names_its_lines(run, pushed, line, tmp_path):
    config = tmp_path / "engine.toml"
    config.write_text(
        f'[redis]\nurl = "{line.url}"\nprefix = "{line.prefix}"\n[[line]]\nname = "{line.name}"\nbundle = "gone"\n'
    )
    status, stdout, _ = run("audit", "--config", config, "--json")
    assert status == 0
    assert json.loads(stdout)["lines"][line.name]["waiting"] == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no line is named"),
        (["--line", "a b"], "line[0].name"),
        (["--line", "a", "--line", "b", "--journal", "x"], "--journal: expected one line, got 2"),
        (["--line", "a", "--redis", "embedded"], "embedded server is gone"),
        (["--line", "a", "--redis", "ftp://x"], "redis.url"),
        (["--config", "/nonexistent.toml"], "cannot be read"),
    ],
)
def test_wrong_usage_exits_2_with_one_line(run, arguments, said):
    status, stdout, stderr = run("audit", *arguments)
    assert (status, stdout) == (2, "")
    (said_line,) = stderr.strip().splitlines()
    assert said in said_line


def test_a_server_that_is_away_exits_1(run, tmp_path):
    status, _, stderr = run("audit", "--line", "a", "--redis", f"unix://{tmp_path}/none.sock")
    assert status == 1
    assert len(stderr.strip().splitlines()) == 1
