"""docs/triton.md: what it tells people to type gives what it says, on a real server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

DOCUMENT = (Path(__file__).parents[2] / "docs" / "triton.md").read_text()


def block(language: str, containing: str) -> str:
    (found,) = [text for text in re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.M | re.S) if containing in text]
    return found


@pytest.fixture
def folder(pictures, tmp_path):
    """Where a picture with a white spot lies."""
    image = pictures[0].copy()
    image[16:32, 16:32] = 255
    cv2.imwrite(str(tmp_path / "part.png"), image)
    return tmp_path


def test_the_python_example_prints_score_and_label_and_writes_the_mask(running, folder):
    code = block("python", "get_model_metadata").replace("127.0.0.1:8001", running.grpc)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    score, label = done.stdout.split()
    assert float(score) > 0.5
    assert label == "True"
    assert cv2.imread(str(folder / "mask.png"), cv2.IMREAD_UNCHANGED).shape == (64, 64)


def test_the_curl_example_answers_as_shown(running, folder):
    script = block("bash", "curl").replace("127.0.0.1:8000", running.http)
    script = script.replace("224", "64").replace("150528", str(64 * 64 * 3))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, done.stderr
    answer, shown = json.loads(done.stdout), json.loads(block("json", "pred_score"))
    assert (answer["model_name"], answer["model_version"]) == (shown["model_name"], shown["model_version"])

    def form(document):
        return {(o["name"], o["datatype"], tuple(o["shape"])) for o in document["outputs"]}

    assert form(answer) == form(shown)
    data = {output["name"]: output["data"][0] for output in answer["outputs"]}
    assert data["pred_label"] is True
    assert data["pred_score"] > 0.5
