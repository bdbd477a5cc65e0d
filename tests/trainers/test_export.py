"""Networks in ONNX give what they give in torch, for any batch."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from engine.maps import MapHead
from kernels import fit, mahalanobis_map
from trainers import backbones
from trainers.export import export_onnx
from trainers.features import Extractor
from trainers.fyd.learn import seeded
from trainers.fyd.model import Network, pick_channels
from trainers.fyd.settings import Settings

SETTINGS = Settings(side_px=64, epochs=1)


@pytest.fixture(scope="module")
def network():
    """The default backbone with alignments that do something."""
    with seeded(0):
        net = Network(
            backbones.load(SETTINGS.backbone, 64),
            SETTINGS,
            pick_channels(backbones.build(SETTINGS.backbone, 64), None, 0),
        )
        for part in (net.ica, *net.fca):
            torch.nn.init.normal_(part.localiser.last.weight, std=0.05)
    return net.eval()


@pytest.fixture(scope="module")
def path(network, tmp_path_factory):
    file = tmp_path_factory.mktemp("onnx") / "network.onnx"
    export_onnx(network, file, 64, ("features", "positions"))
    return file


def images(n):
    y, x = np.mgrid[:64, :64]
    waves = [[127 + 120 * np.sin((c + 2) * x / 9 + k) * np.cos(y / 7 + c) for c in range(3)] for k in range(n)]
    return np.asarray(waves).transpose(0, 2, 3, 1).astype(np.uint8)


@pytest.mark.parametrize("n", [1, 3])
def test_onnxruntime_gives_torchs_features(network, path, n):
    pictures = images(n)
    with torch.no_grad():
        features, positions = network(torch.from_numpy(pictures))
    got = Extractor(path, 1)(pictures)
    assert got.values.shape == (n, 176, 8, 8)
    np.testing.assert_allclose(got.positions, positions.numpy(), atol=1e-4)
    np.testing.assert_allclose(got.values, features.numpy(), rtol=1e-2, atol=1e-2)


def test_raw_scores_agree_to_a_thousandth(network, path):
    pictures = images(24)
    with torch.no_grad():
        torchs = network(torch.from_numpy(pictures))[0].numpy()
    runtimes = Extractor(path, 1)(pictures).values
    model, head = fit(torchs[:20], eps=torchs.var(axis=0).mean(axis=(1, 2)) * 0.1 + 1e-3), MapHead((8, 8), 64, 64, 4.0)
    a, b = (head(mahalanobis_map(features, model))[0] for features in (torchs, runtimes))
    np.testing.assert_allclose(a, b, rtol=1e-3)


def test_the_graph_has_the_contracts_names_and_a_free_batch(path):
    graph = onnx.load(path).graph
    assert [i.name for i in graph.input] == ["image"]
    assert [o.name for o in graph.output] == ["features", "positions"]
    batch, *rest = graph.input[0].type.tensor_type.shape.dim
    assert batch.dim_param
    assert [d.dim_value for d in rest] == [64, 64, 3]
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_padding_is_fixed(path):
    """Padding computed at run time would break int8."""
    assert "Pad" not in {node.op_type for node in onnx.load(path).graph.node}


def test_settings_without_learning_have_one_output():
    assert not Network(backbones.build("resnet18", 64), replace(SETTINGS, epochs=0), (torch.arange(64),) * 3).aligns
