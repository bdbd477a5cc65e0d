"""The harness of benchmarks/: questions, result files and the tables in documents."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import accuracy, bench_mahalanobis, methods, one_class, run, tables
from benchmarks.harness import Answer

FOUND = {
    "image_AUROC": 0.9876,
    "pixel_AUROC": None,
    "pixel_AUPRO": None,
    "f1": 0.9,
    "false_alarm_rate": 0.025,
    "n_good": 40,
    "n_defect": 9,
    "eval_s": 3.0,
}
ACCURACY = {"data": [{"name": "cells", "train_s": 31.4, "target_fpr": 0.01, "fp32": FOUND, "int8": FOUND}]}


def test_an_answer_is_written_with_its_environment(tmp_path):
    path = Answer("accuracy", ACCURACY).write(tmp_path / "results")
    document = json.loads(path.read_text())
    assert path.name == "accuracy.json"
    assert document["environment"]["versions"]["numpy"] == np.__version__
    assert document["data"] == ACCURACY["data"]


def test_tables_fill_their_markers_and_leave_the_rest(tmp_path):
    Answer("accuracy", ACCURACY).write(tmp_path)
    text = "a\n<!-- table: accuracy -->\nold\n<!-- end -->\nb\n<!-- table: streaming -->\nkept\n<!-- end -->\n"
    new = tables.rendered(text, tmp_path)
    assert "| cells | int8 | 0.988 | - | - | 0.900 | 2.5 % (1 %) of 40 | 31 |" in new
    assert "old" not in new
    assert new.startswith("a\n<!-- table: accuracy -->\n|")
    assert new.endswith("b\n<!-- table: streaming -->\nkept\n<!-- end -->\n")
    assert tables.rendered(new, tmp_path) == new


def test_a_table_of_runs_names_every_machine_and_day(tmp_path):
    def run(seed, cpu, day):
        cost = {"train_cpu_s": 9, "peak_mb": 9}
        return {"seed": seed, **cost, "environment": {"cpu": cpu, "cores": 2, "utc": f"2026-11-{day}T01:00:00+00:00"}}

    runs = [run(0, "Xeon", 27), run(1, "EPYC", 25), run(2, "Xeon", 26)]
    row = {"data": "cells", "variant": "igd, scratch", "epochs": 6, "fps": None, "runs": runs}
    Answer("methods", {"rows": [row]}).write(tmp_path)
    text = tables.rendered("<!-- table: methods -->\n<!-- end -->\n", tmp_path)
    caption = text.splitlines()[-2]
    assert caption.startswith("EPYC, 2 cores and Xeon, 2 cores; ")
    assert caption.endswith("; 2026-11-25 to 2026-11-27.")


def test_every_question_has_a_table_and_a_place_in_the_readme():
    alone = {module.QUESTION for module in (bench_mahalanobis, methods, one_class)}
    assert {*run.QUESTIONS} | alone == set(tables.TABLES)
    shown = "".join(path.read_text() for path in tables.DOCUMENTS)
    assert all(f"<!-- table: {question} -->" in shown for question in tables.TABLES)


def test_the_readme_shows_the_committed_results():
    assert tables.main(["--check"]) == 0


def test_an_unknown_question_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        run.main(["speed"])
    assert "expected some of" in capsys.readouterr().err


def test_a_number_that_is_not_there_is_a_dash():
    assert accuracy.table(ACCURACY).count("| - | - |") == 2
