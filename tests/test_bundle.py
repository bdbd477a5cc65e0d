import json
import os

import msgspec
import pytest

from engine import bundle
from engine.contract import (
    Calibration,
    Estimate,
    Executable,
    Input,
    Manifest,
    Scale,
    TrainingData,
)
from engine.errors import BundleError

ESTIMATE = Estimate(target_fpr=0.01, how="k-fold", guarantee=False, n_images=9, folds=3, interval=(0.0, 0.1), note="")
CALIBRATION = Calibration(
    image=Scale(threshold=10.0, width=1.0),
    pixel=Scale(threshold=8.0, width=1.0),
    image_estimate=ESTIMATE,
    pixel_estimate=ESTIMATE,
)


def write(path, network=b"network", method="fyd"):
    with bundle.writing(path) as folder:
        file = folder / "network.onnx"
        file.write_bytes(network)
        executable = Executable(network=bundle.describe(file, folder), calibration=CALIBRATION)
        bundle.write_manifest(folder, manifest(executable, method))
    return path


def manifest(executable, method):
    return Manifest(
        name="screw",
        version="1",
        method=method,
        input=Input(height=224, width=224),
        grid=(28, 28),
        smoothing_sigma_px=4.0,
        executables={"fp32": executable},
        training=TrainingData(path="data", n_good=9, sha256="0", height_range=(64, 64), width_range=(64, 64)),
        settings={"epochs": 0},
        report={},
        versions={"anomaly-engine": "0.1.0"},
    )


def edit(path, change):
    file = path / "bundle.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def test_what_is_written_is_read_back(tmp_path):
    loaded = bundle.read(write(tmp_path / "b"))
    assert loaded.manifest.model == "screw@1"
    assert loaded.manifest.executables["fp32"].calibration == CALIBRATION
    assert loaded.file(loaded.executable("fp32").network).read_bytes() == b"network"


def test_a_changed_file_is_refused_by_name(tmp_path):
    path = write(tmp_path / "b")
    (path / "network.onnx").write_bytes(b"netw0rk")
    with pytest.raises(BundleError, match=r"network\.onnx: SHA-256"):
        bundle.read(path)


def test_a_missing_file_is_refused_by_name(tmp_path):
    path = write(tmp_path / "b")
    (path / "network.onnx").unlink()
    with pytest.raises(BundleError, match=r"network\.onnx: file is missing"):
        bundle.read(path)


@pytest.mark.parametrize("version", [2, "1", None, 1.5])
def test_another_schema_version_is_refused(tmp_path, version):
    path = write(tmp_path / "b")
    edit(path, lambda d: d.update(schema_version=version))
    with pytest.raises(BundleError, match="schema_version"):
        bundle.read(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("input", {"height": 0, "width": 64}), ("input", {"height": 10**9, "width": 64}), ("grid", [0, 8]), ("grid", [8])],
)
def test_sizes_that_no_picture_has_are_refused(tmp_path, key, value):
    path = write(tmp_path / "b")
    edit(path, lambda d: d.update({key: value}))
    with pytest.raises(BundleError, match=rf"bundle\.json.*{key}"):
        bundle.read(path)


@pytest.mark.parametrize("outside", ["../secret.onnx", "/etc/hostname", "a/../../secret.onnx"])
def test_a_path_outside_the_folder_is_refused(tmp_path, outside):
    (tmp_path / "secret.onnx").write_bytes(b"network")
    path = write(tmp_path / "b")
    edit(path, lambda d: d["executables"]["fp32"]["network"].update(path=outside))
    with pytest.raises(BundleError, match="outside the bundle"):
        bundle.read(path)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    path = write(tmp_path / "b")
    os.replace(path / "network.onnx", tmp_path / "network.onnx")
    (path / "network.onnx").symlink_to(tmp_path / "network.onnx")
    with pytest.raises(BundleError, match="outside the bundle"):
        bundle.read(path)


def test_unknown_keys_bad_json_and_no_bundle_are_refused(tmp_path):
    path = write(tmp_path / "b")
    edit(path, lambda d: d.update(surprise=1))
    with pytest.raises(BundleError, match="surprise"):
        bundle.read(path)
    (path / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="not valid JSON"):
        bundle.read(path)
    with pytest.raises(BundleError, match="no bundle here"):
        bundle.read(tmp_path / "nowhere")


def test_an_uncalibrated_precision_is_refused_naming_those_there_are(tmp_path):
    with pytest.raises(BundleError, match=r"no int8 executable .*it has: fp32"):
        bundle.read(write(tmp_path / "b")).executable("int8")


def test_a_bundle_appears_whole_or_not_at_all(tmp_path):
    path = write(tmp_path / "b")
    with pytest.raises(RuntimeError, match="interrupted"), bundle.writing(path) as folder:
        (folder / "network.onnx").write_bytes(b"half")
        raise RuntimeError("interrupted")
    assert bundle.read(path).manifest.method == "fyd"
    assert os.listdir(tmp_path) == ["b"]
    write(path, method="ssae")
    assert bundle.read(path).manifest.method == "ssae"
    assert os.listdir(tmp_path) == ["b"]


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("x")
    with pytest.raises(BundleError, match="not a bundle"), bundle.writing(tmp_path / "precious"):
        pass
    assert (tmp_path / "precious" / "thesis.txt").exists()


def test_a_place_that_cannot_be_made_is_refused_before_anything_is_done(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="file is no folder that can be written to; choose another --out"):
        bundle.check_replaceable(tmp_path / "file/deep/screw")
    (tmp_path / "closed").mkdir(0o555)
    if not os.access(tmp_path / "closed", os.W_OK):
        with pytest.raises(BundleError, match="closed is no folder that can be written to"):
            bundle.check_replaceable(tmp_path / "closed/screw")


def test_the_manifest_survives_a_round_trip_exactly():
    executable = Executable(network=bundle.File(path="n.onnx", sha256="0" * 64, bytes=1), calibration=CALIBRATION)
    before = manifest(executable, "fyd")
    assert msgspec.json.decode(msgspec.json.encode(before), type=Manifest) == before
