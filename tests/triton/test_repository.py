"""A repository on disk: versions beside each other, one switch, nothing half done."""

from __future__ import annotations

import importlib.util
import shutil

import msgspec
import pytest

from engine.cli import main
from engine.errors import UsageError
from engine.triton import served
from engine.triton.repository import Repository


def versioned(bundle, version):
    """The same bundle under another version."""
    manifest = msgspec.structs.replace(bundle.manifest, version=version)
    return type(bundle)(bundle.path, manifest)


@pytest.fixture
def path(bundle, export, tmp_path):
    export(bundle, tmp_path / "repository")
    return tmp_path / "repository"


def test_an_export_has_all_that_it_serves(path, bundle):
    repository = Repository(path)
    assert repository.current == 1
    folders = {folder.name for folder in path.iterdir()}
    assert set(repository.models()) == folders
    assert {"detector", "fyd"} <= folders
    for folder in folders:
        assert (path / folder / "config.pbtxt").is_file()
        assert served.read(path / folder / "1").manifest == bundle.manifest


def test_a_new_version_lies_beside_the_old_one_and_back_again(path, export, bundle):
    before = Repository(path).models()
    export(versioned(bundle, "2"), path)
    repository = Repository(path)
    assert repository.current == 2
    assert {number: version.manifest.version for number, version in repository.versions().items()} == {1: "1", 2: "2"}
    assert not set(repository.models()) & set(before) - {"detector", "fyd"}
    assert set(repository.all_models()) == {folder.name for folder in path.iterdir()}
    assert set(before) | set(repository.models()) == set(repository.all_models())
    assert "versions: [ 2 ]" in (path / "fyd/config.pbtxt").read_text()
    assert main(["triton", "rollback", str(path)]) == 0
    assert repository.current == 1
    assert repository.models() == before
    assert main(["triton", "rollback", str(path)]) == 0
    assert repository.current == 2


def test_there_is_no_way_back_from_the_first_version(path):
    with pytest.raises(UsageError, match="nothing was served before version 1"):
        Repository(path).switch_back()


def test_a_version_that_was_rolled_back_is_not_what_the_next_one_goes_back_to(path, export, bundle):
    export(versioned(bundle, "bad"), path)
    repository = Repository(path)
    repository.switch_back()
    export(versioned(bundle, "better"), path)
    assert repository.switch_back() == 1
    assert [version.manifest.version for version in repository.versions().values()] == ["1", "better"]


def test_older_versions_go_with_their_models(path, export, bundle):
    for version in ("2", "3", "4"):
        export(versioned(bundle, version), path)
    repository = Repository(path)
    assert list(repository.versions()) == [3, 4]
    tags = {version.tag for version in repository.versions().values()}
    assert {folder.name.split("-")[1] for folder in path.iterdir() if "-" in folder.name} == tags
    assert set(path.joinpath("fyd").glob("[0-9]*")) == {path / "fyd/3", path / "fyd/4"}


def test_the_same_bundle_again_shares_its_models(path, export, bundle):
    folders = {folder.name for folder in path.iterdir()}
    export(bundle, path)
    assert {folder.name for folder in path.iterdir()} == folders
    assert Repository(path).current == 2


def test_another_method_takes_the_place_of_the_old_one_when_it_is_forgotten(path, export, bundle):
    manifest = msgspec.structs.replace(bundle.manifest, method="igd")
    for version in ("2", "3"):
        export(versioned(type(bundle)(bundle.path, manifest), version), path)
    assert (path / "igd").is_dir()
    assert not (path / "fyd").exists()


def test_what_fails_on_the_way_changes_nothing(path, export, bundle, tmp_path):
    shutil.copytree(bundle.path, tmp_path / "broken")
    broken = type(bundle)(tmp_path / "broken", msgspec.structs.replace(bundle.manifest, version="9"))
    (tmp_path / "broken" / "gaussian.safetensors").unlink()
    before = sorted(path.rglob("*"))
    with pytest.raises(FileNotFoundError, match=r"gaussian\.safetensors"):
        export(broken, path)
    assert sorted(path.rglob("*")) == before
    assert Repository(path).current == 1


def test_models_that_are_gone_are_missed_before_a_server_is_started(path):
    shutil.rmtree(path / Repository(path).models()[0])
    with pytest.raises(UsageError, match=r"no fyd-\w+, which version 1 consists of"):
        Repository(path).models()


def test_a_folder_of_something_else_is_left_alone(bundle, export, tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(UsageError, match="no Triton repository of this engine"):
        export(bundle, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


def test_a_gpu_needs_the_tensorrt_whose_plans_triton_loads(bundle, export, tmp_path):
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("full TensorRT is installed here")
    with pytest.raises(UsageError, match="needs full TensorRT, because Triton does not load the plans of TensorRT-RTX"):
        export(bundle, tmp_path / "gpu", device="gpu")
    assert not (tmp_path / "gpu").exists()


@pytest.mark.parametrize("command", ["up", "status", "rollback"])
def test_commands_on_no_repository_say_how_to_make_one(command, tmp_path, capsys):
    assert main(["triton", command, str(tmp_path)]) == 2
    assert "engine export BUNDLE --target triton" in capsys.readouterr().err
