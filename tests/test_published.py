"""A place that bundles are published to, and back."""

from __future__ import annotations

import json
import os
import shutil

import msgspec
import pytest

from engine import bundle as bundles
from engine.cli import main
from engine.errors import BundleError, UsageError
from engine.published import Place, Switch


@pytest.fixture
def versions(tiny, tmp_path):
    """Three versions of the small detector."""
    manifest = bundles.read(tiny.path).manifest
    paths = []
    for version in "123":
        path = tmp_path / f"made-{version}"
        shutil.copytree(tiny.path, path)
        bundles.write_manifest(path, msgspec.structs.replace(manifest, version=version))
        paths.append(path)
    return paths


def model_at(path):
    return bundles.read(path).manifest.model


def test_publish_and_back_and_forth(versions, tmp_path):
    place = Place(tmp_path / "live" / "part")
    assert place.publish(versions[0]) == Switch("tiny@1", None)
    with pytest.raises(UsageError, match="nothing stood here before"):
        place.roll_back()
    assert place.publish(versions[1]) == Switch("tiny@2", "tiny@1")
    assert model_at(place.path) == "tiny@2"
    assert place.roll_back() == Switch("tiny@1", "tiny@2")
    assert model_at(place.path) == "tiny@1"
    assert place.roll_back() == Switch("tiny@2", "tiny@1")
    assert place.publish(versions[2]) == Switch("tiny@3", "tiny@2")
    assert {path.name for path in place.versions.iterdir()} == {"tiny@2", "tiny@3", "previous"}


def test_the_same_version_again_changes_nothing(versions, tmp_path):
    place = Place(tmp_path / "part")
    place.publish(versions[0])
    place.publish(versions[1])
    before = os.stat(place.path / "bundle.json")
    assert place.publish(versions[1]) == Switch("tiny@2", "tiny@1")
    assert os.stat(place.path / "bundle.json") == before


def test_a_bundle_that_stands_there_itself_is_what_rollback_brings_back(versions, tmp_path):
    place = Place(versions[0])
    assert place.publish(versions[1]) == Switch("tiny@2", "tiny@1")
    assert model_at(versions[0]) == "tiny@2"
    assert place.roll_back().model == "tiny@1"


def test_a_damaged_bundle_is_not_published(versions, tmp_path):
    place = Place(tmp_path / "part")
    place.publish(versions[0])
    (versions[1] / "network.onnx").write_bytes(b"damaged")
    with pytest.raises(BundleError, match="SHA-256"):
        place.publish(versions[1])
    assert model_at(place.path) == "tiny@1"


def test_a_folder_of_something_else_is_left_alone(versions, tmp_path):
    (tmp_path / "letters").mkdir()
    with pytest.raises(BundleError, match="no bundle here"):
        Place(tmp_path / "letters").publish(versions[0])
    assert (tmp_path / "letters").is_dir()


def test_the_commands_say_what_stands_there_now(versions, tmp_path, capsys):
    place = str(tmp_path / "part")
    for path in versions[:2]:
        assert main(["publish", str(path), place, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.split("}")[1] + "}") == {"model": "tiny@2", "before": "tiny@1"}
    assert main(["rollback", place]) == 0
    assert capsys.readouterr().out == "tiny@1 (before: tiny@2)\n"
    assert main(["rollback", str(tmp_path / "nothing")]) == 2
