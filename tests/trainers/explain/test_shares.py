"""Per-model contributions of an ensemble of two trained bundles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine import bundle as bundles
from engine.api import load
from engine.cli import main
from engine.cli.fuse import opener
from trainers import registry
from trainers.ensemble.fuse import FuseOptions, fuse
from trainers.explain import shares
from trainers.progress import RecordedProgress


@pytest.fixture(scope="module")
def members(trained, tiny_options, tmp_path_factory) -> tuple[Path, Path]:
    """FYD on all features and on a few of them."""
    options = replace(tiny_options("fyd", tmp_path_factory.mktemp("few") / "few"), channels=20)
    return trained("fyd").bundle, registry.get("fyd").train(options, RecordedProgress()).bundle


@pytest.fixture(scope="module", params=["mean", "max"])
def ensemble(request, members, parts, tmp_path_factory) -> Path:
    """The folder of both as one."""
    out = tmp_path_factory.mktemp("fused") / request.param
    options = FuseOptions(members, parts, out, target_fpr=0.05, rule=request.param)
    fuse(options, opener(threads=1), RecordedProgress())
    return out


def test_shares_add_up_to_the_fused_score(ensemble, notched):
    bundle = bundles.read(ensemble)
    with load(ensemble, backend="onnx", threads=1) as model:
        raw = model.predictor.predict(bundle.sheet.fit(notched)[None])
    found = shares(bundle.ensemble("fp32"), {name: float(scores[0]) for name, scores in raw.members.items()})
    assert list(found) == list(bundle.members)
    assert sum(found.values()) == pytest.approx(float(raw.scores[0]), rel=1e-6)
    if bundle.ensemble("fp32").rule == "max":
        assert sorted(found.values())[0] == 0


def test_every_member_is_explained(ensemble, notched, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "part.png"), np.ascontiguousarray(notched[..., ::-1]))
    out = tmp_path / "out"
    command = ["explain", ensemble, tmp_path / "part.png", "--out", out, "--steps", 2, "--threads", 1, "--json"]
    assert main([str(word) for word in command]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document["models"]) == set(document["scores"]) == set(document["shares"])
    assert sum(document["shares"].values()) == pytest.approx(document["raw_score"], rel=1e-5)
    for name, row in document["models"].items():
        assert row["pred_score"] == pytest.approx(document["scores"][name], rel=1e-4)
        assert (out / name / "heat-map.png").is_file()
    assert "of the ensemble's score comes from it" in (out / "explanation.html").read_text().replace("&#39;", "'")
