"""Regions of interest on a real server: per camera, through a new bundle, and every frame ends exactly once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from engine import bundle as bundles
from engine.config import Line, LineRegion, parse
from engine.errors import ConfigError
from engine.interest import Interest
from engine.metrics import Metrics
from engine.pipeline import Pipeline
from engine.pipeline.lines import load_again, load_all
from engine.streams.redis import connect

LEFT = LineRegion(camera="left", unit="share", include=(((0, 0), (0.5, 0), (0.5, 1), (0, 1)),))
PIXELS = LineRegion(camera="pixels", include=(((0, 0), (40, 0), (40, 20), (0, 20)),))


def spotted(side: int, column: int) -> bytes:
    """A dark picture with a white spot."""
    image = np.full((side, side), 20, np.uint8)
    image[4:12, column : column + 8] = 255
    return cv2.imencode(".png", image)[1].tobytes()


def test_each_camera_is_judged_within_its_region(line, make_config: Callable[..., object], run_burst) -> None:
    right = {camera: line.push(data=spotted(64, 48), camera=camera) for camera in ("left", "pixels", "free")}
    inside = {camera: line.push(data=spotted(64, 8), camera=camera) for camera in ("left", "pixels", "free")}
    small = line.push(data=spotted(32, 8), camera="pixels")
    config = make_config(line, mask="always", map="always")
    run_burst(config, interest=Interest((LEFT, PIXELS)))
    assert line.ends() == sorted([*right.values(), *inside.values(), small])
    results = {result.frame: result for result in line.results()}
    assert {camera: results[frame].decision for camera, frame in right.items()} == {
        "left": "good",
        "pixels": "good",
        "free": "reject",
    }
    assert {results[frame].decision for frame in inside.values()} == {"reject"}
    seen = results[right["left"]]
    assert (seen.raw_score, seen.regions) == (pytest.approx(20 / 255), ())
    assert not seen.anomaly_map[:, 32:].any()
    assert (seen.anomaly_map[:, :32] > 0).all()
    assert not seen.pred_mask.any()
    assert results[inside["left"]].regions[0].bbox == results[inside["free"]].regions[0].bbox
    (dead,) = line.dead()
    assert (dead.frame, dead.letter.type) == (small, "contract")
    assert "32 x 32 px, but a polygon of its region of interest reaches to x = 40" in dead.letter.message


def test_a_new_bundle_keeps_the_regions(line, tiny, tmp_path: Path) -> None:
    """As `engine serve` reads and loads them; the mask is not read again."""
    path, mask = tmp_path / "live", tmp_path / "mask.png"
    shutil.copytree(tiny.path, path)
    cv2.imwrite(str(mask), np.repeat(np.uint8([[255, 0]]), 32, axis=0).repeat(32, axis=1))
    region = {"camera": "cam1", "mask": str(mask)}
    document = {
        "line": [{"name": line.name, "bundle": str(path), "region": [region]}],
        "redis": {"url": line.url, "prefix": line.prefix},
        "runtime": {"backend": "onnx", "threads": 1},
    }
    config = parse(document, where=Path("(test)"))
    (old,) = load_all(config)
    mask.unlink()
    manifest = bundles.read(path).manifest
    bundles.write_manifest(path, msgspec.structs.replace(manifest, version="2"))
    new = load_again(old, config)
    random = np.random.default_rng(0)
    picture = random.integers(90, 160, (64, 64, 3), dtype=np.uint8)
    picture[20:36, 44:60] = 255
    entries = []
    for loaded in (old, new):
        watches = loaded.watches(config)
        data = cv2.imencode(".png", picture)[1].tobytes()
        entries += [line.push(data=data, camera=camera) for camera in ("cam1", "cam2")]
        with connect(config) as streams:
            Pipeline(streams.source, streams.sink, watches, config, Metrics()).run(burst=True)
        loaded.predictor.close()
    assert line.ends() == sorted(entries)
    found = [(result.model, result.camera, result.decision) for result in line.results()]
    assert sorted(found) == [
        ("tiny@1", "cam1", "good"),
        ("tiny@1", "cam2", "reject"),
        ("tiny@2", "cam1", "good"),
        ("tiny@2", "cam2", "reject"),
    ]


def test_a_missing_mask_is_refused_before_frames_are_read(tiny) -> None:
    line = Line("line1", str(tiny.path), region=(LineRegion(mask="nowhere/mask.png"),))
    config = parse(msgspec.to_builtins({"line": [line], "runtime": {"backend": "onnx"}}), where=Path("(test)"))
    with pytest.raises(ConfigError, match=r"line\.region\.mask: nowhere/mask\.png cannot be read"):
        load_all(config)
