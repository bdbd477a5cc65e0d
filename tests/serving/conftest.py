"""An ensemble of small detectors of two sizes, two of which have one network."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from engine import bundle as bundles
from engine.cascade import KINDS, MADE_UP
from engine.contract import Ensemble, Executable, File, Input, Manifest, Member, Tail
from trainers.ensemble import common

WEIGHTS = {"grey": 1.0, "mixed": 2.0, "twin": 1.0}

IMAGE_TAILS = {
    "grey": Tail((0.2, 0.4, 0.6), (0.05, 0.7, 2.5), (1.0, 4.0, 8.0), rate=10.0, shape=4.0),
    "mixed": Tail((4.0, 6.0), (0.1, 2.0), (0.5, 1.2), rate=1.5, shape=6.0),
    "twin": Tail((3.0, 7.0), (0.2, 2.5), (0.3, 0.7), rate=0.8, shape=5.0),
}


def grey_network(path: Path) -> None:
    """(N, 32, 32, 3) uint8 -> grid (N, 8, 8): local mean brightness in 0..1."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["chw"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["chw"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("ReduceMean", ["pooled", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "full"], ["grid"]),
    ]
    graph = helper.make_graph(
        nodes,
        "grey",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 32, 32, 3])],
        [helper.make_tensor_value_info("grid", TensorProto.FLOAT, ["N", 8, 8])],
        [
            onnx.numpy_helper.from_array(np.array([1], np.int64), "axes"),
            onnx.numpy_helper.from_array(np.float32(255), "full"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def write_grey(folder: Path, like: Manifest) -> None:
    grey_network(folder / "network.onnx")
    calibration = like.executables["fp32"].calibration
    executable = Executable(network=bundles.describe(folder / "network.onnx", folder), calibration=calibration)
    manifest = msgspec.structs.replace(
        like, name="grey", method="grey", input=Input(32, 32), executables={"fp32": executable}, grid=(8, 8)
    )
    bundles.write_manifest(folder, manifest)


@pytest.fixture(scope="session")
def make_ensemble(tiny, tmp_path_factory) -> Callable[..., Path]:
    """An ensemble's bundle with its members in some order; keywords change its `Ensemble`."""

    def make(order: tuple[str, ...] = tuple(WEIGHTS), **changes: object) -> Path:
        path = tmp_path_factory.mktemp("ensembles") / "duo"
        like = bundles.read(tiny.path).manifest
        with bundles.writing(path) as folder:
            for name in ("mixed", "twin"):
                shutil.copytree(tiny.path, folder / "members" / name)
            (folder / "members" / "grey").mkdir()
            write_grey(folder / "members" / "grey", like)
            own = {name: folder / "members" / name / "network.onnx" for name in order}
            networks = common.write(folder, own, "fp32")
            members = tuple(member(folder, name, networks.get(name)) for name in order)
            ramp = np.linspace(0, 3, 2000)
            frames = dict.fromkeys(KINDS, ramp) | {MADE_UP: np.zeros(1)}
            save_file({f"{k}.{of}": each for k, each in frames.items() for of in ("first", "fused")}, folder / "frames")
            calibration = like.executables["fp32"].calibration
            described = bundles.describe(folder / "frames", folder)
            ensemble = Ensemble(members=members, rule="mean", calibration=calibration, frames=described)
            ensemble = msgspec.structs.replace(ensemble, **changes)
            whole = msgspec.structs.replace(
                like, name="duo", method="ensemble", executables={}, ensembles={"fp32": ensemble}
            )
            bundles.write_manifest(folder, whole)
        return path

    return make


def member(folder: Path, name: str, network: File | None) -> Member:
    manifest = bundles.describe(folder / "members" / name / "bundle.json", folder)
    return Member(name, manifest, IMAGE_TAILS[name], IMAGE_TAILS[name], WEIGHTS[name], 1.0, network)


@pytest.fixture(scope="session")
def duo(make_ensemble) -> Path:
    return make_ensemble()
