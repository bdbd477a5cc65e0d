"""A bundle small enough to build in a test: its network shows brightness, its Gaussian is fitted on grey noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import kernels
from engine import bundle as bundles
from engine.contract import Calibration, Estimate, Executable, Input, Manifest, Scale, TrainingData

SIDE, GRID, CHANNELS = 64, 8, 4


def network(path):
    """(N, 64, 64, 3) uint8 -> features (N, 4, 8, 8): local means of mixed colours."""
    mix = np.random.default_rng(0).normal(size=(CHANNELS, 3, 1, 1)).astype(np.float32) / 50
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["chw"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["chw"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Conv", ["pooled", "mix"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", CHANNELS, GRID, GRID])],
        [onnx.numpy_helper.from_array(mix, "mix")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return mix


@dataclass(frozen=True)
class Tiny:
    path: Path
    mix: np.ndarray

    def features(self, images):
        """The network's features in float64."""
        n = len(images)
        pooled = images.astype(np.float64).reshape(n, GRID, 8, GRID, 8, 3).mean(axis=(2, 4))  # (N, h, w, 3)
        return np.einsum("nhwc,kc->nkhw", pooled, self.mix[:, :, 0, 0].astype(np.float64))


@pytest.fixture(scope="session")
def pictures():
    return np.random.default_rng(1).integers(90, 160, (40, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, pictures):
    """The small detector as a bundle."""
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    with bundles.writing(path) as folder:
        mix = network(folder / "network.onnx")
        gaussian = kernels.fit(Tiny(path, mix).features(pictures).astype(np.float32), eps=0.01)
        gaussian.save(folder / "gaussian.safetensors")
        bundles.write_manifest(folder, _manifest(folder))
    return Tiny(path, mix)


def _manifest(folder):
    estimate = Estimate(
        target_fpr=0.01, how="k-fold", guarantee=False, n_images=40, folds=5, interval=(0.0, 0.1), note="a test"
    )
    executable = Executable(
        network=bundles.describe(folder / "network.onnx", folder),
        gaussian=bundles.describe(folder / "gaussian.safetensors", folder),
        calibration=Calibration(
            image=Scale(threshold=6.0, width=1.0),
            pixel=Scale(threshold=5.0, width=1.0),
            image_estimate=estimate,
            pixel_estimate=estimate,
        ),
    )
    return Manifest(
        name="tiny",
        version="1",
        method="fyd",
        input=Input(height=SIDE, width=SIDE),
        grid=(GRID, GRID),
        smoothing_sigma_px=2.0,
        executables={"fp32": executable},
        training=TrainingData(path="x", n_good=40, sha256="0", height_range=(64, 64), width_range=(64, 64)),
        settings={},
        report={},
        versions={},
    )
