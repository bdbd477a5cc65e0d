"""A consumer that is killed inside a cascade: every frame ends once all the same, with the score of a full run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

from engine import bundle as bundles
from engine.serving.select import open_local

GOOD, SUSPICIOUS = 20, 180  # brightness
BATCH = 4


@pytest.fixture
def serve(line, duo, tmp_path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts `engine serve` on the line."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(max_wait_ms: int) -> subprocess.Popen[bytes]:
        config = tmp_path / f"{len(processes)}.toml"
        config.write_text(
            "\n".join(
                [
                    f"redis = {{ url = {json.dumps(line.url)}, prefix = {json.dumps(line.prefix)} }}",
                    f"batch = {{ max_size = {BATCH}, max_wait_ms = {max_wait_ms} }}",
                    "delivery = { claim_idle_ms = 300 }",
                    "runtime = { backend = 'onnx', threads = 1, cascade = 0.01 }",
                    f"line = [{{ name = {json.dumps(line.name)}, bundle = {json.dumps(str(duo))}, review = 0.09 }}]",
                ]
            )
        )
        with (tmp_path / f"{len(processes)}.log").open("wb") as log:
            command = [sys.executable, "-m", "engine", "serve", "--config", str(config)]
            processes.append(subprocess.Popen(command, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait(10)


def push(line, bundle, good: int, suspicious: int) -> dict[str, np.ndarray]:
    """Frames in no order; their sheets by their entries."""
    random = np.random.default_rng(0)
    pushed = {}
    for level in random.permutation([GOOD] * good + [SUSPICIOUS] * suspicious):
        image = np.clip(random.normal(level, 10, (70, 90, 3)), 0, 255).astype(np.uint8)
        pushed[line.push(data=cv2.imencode(".png", image[..., ::-1])[1].tobytes())] = bundle.sheet.fit(image)
    return pushed


def check(line, bundle, pushed: dict[str, np.ndarray]) -> None:
    """Each frame has one result, a good one's from the first member, a suspicious one's from all, as without a kill."""
    assert line.ends() == sorted(pushed)
    assert line.dead() == []
    ensemble = open_local(bundle, "onnx", "fp32", threads=1)
    sheets = np.stack(list(pushed.values()))
    first, whole = ensemble.screen(sheets), ensemble.predict(sheets)
    results = {result.frame: result for result in line.results()}
    for i, frame in enumerate(pushed):
        raw = first if sheets[i].mean() < (GOOD + SUSPICIOUS) / 4 else whole  # half of a sheet is empty
        assert set(results[frame].scores) == set(raw.members)
        assert results[frame].raw_score == pytest.approx(raw.scores[i], rel=1e-9)


def test_frames_that_wait_for_the_rest_of_an_ensemble_survive_a_kill(line, duo, serve, wait_until) -> None:
    """The first consumer holds two suspicious frames until their batch is full, which it never is."""
    bundle = bundles.read(duo)
    pushed = push(line, bundle, good=5 * BATCH + 2, suspicious=3 * BATCH + 2)
    first = serve(max_wait_ms=60_000)
    wait_until(lambda: len(line.results()) == len(pushed) - 2)
    first.kill()
    first.wait(10)
    assert len(line.pending()) == 2
    serve(max_wait_ms=5)
    wait_until(lambda: line.left() == 0 and not line.pending())
    check(line, bundle, pushed)


def test_frames_that_the_rest_of_an_ensemble_is_looking_at_survive_a_kill(line, duo, serve, wait_until) -> None:
    """The first consumer is killed when its first frame has been through all members, and others are on the way."""
    bundle = bundles.read(duo)
    pushed = push(line, bundle, good=200, suspicious=200)
    first = serve(max_wait_ms=5)
    wait_until(lambda: any(len(result.scores) > 1 for result in line.results()))
    first.kill()
    first.wait(10)
    assert line.pending()
    serve(max_wait_ms=5)
    wait_until(lambda: line.left() == 0 and not line.pending())
    check(line, bundle, pushed)
