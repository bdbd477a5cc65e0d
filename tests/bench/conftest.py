"""A bundle that loads in no time: its network is one average, brightness is the anomaly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine import bundle
from engine.bundle import Bundle
from engine.contract import GRID_NAME, INPUT_NAME, Calibration, Executable, Input, Manifest, TrainingData

SIDE = 32
GRID = 4


@pytest.fixture
def small_bundle(tmp_path: Path, calibration: Calibration) -> Bundle:
    """Grid (N, 4, 4) = mean brightness of each 8 x 8 block over all colours, in 0..1."""
    with bundle.writing(tmp_path / "small") as folder:
        onnx.save(brightness(), folder / "network.onnx")
        executable = Executable(network=bundle.describe(folder / "network.onnx", folder), calibration=calibration)
        training = TrainingData(
            path=str(tmp_path / "gone"), n_good=10, sha256="0" * 64, height_range=(40, 60), width_range=(50, 70)
        )
        manifest = Manifest(
            name="small",
            version="1",
            method="brightness",
            input=Input(height=SIDE, width=SIDE),
            grid=(GRID, GRID),
            smoothing_sigma_px=0.0,
            executables={"fp32": executable},
            training=training,
            settings={},
            report={},
            versions={},
        )
        bundle.write_manifest(folder, manifest)
    return bundle.read(tmp_path / "small")


def brightness() -> onnx.ModelProto:
    block = SIDE // GRID
    shape = np.array([0, GRID, block, GRID, block, 3], np.int64)
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["levels", "shape"], ["blocks"]),
        helper.make_node("ReduceMean", ["blocks", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "full"], [GRID_NAME]),
    ]
    constants = {"shape": shape, "axes": np.array([2, 4, 5], np.int64), "full": np.array(255, np.float32)}
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info(GRID_NAME, TensorProto.FLOAT, ["N", GRID, GRID])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
