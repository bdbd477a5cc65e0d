"""The operator of torch: its numbers are those of the kernel, and it traces."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import kernels
from trainers.network.mahalanobis import Mahalanobis, mahalanobis_map


@pytest.fixture
def features():
    return np.random.default_rng(0).standard_normal((30, 6, 3, 4)).astype(np.float32)


class Network(torch.nn.Module):
    """Features that depend on the picture, then distances."""

    def __init__(self, gaussian):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 6, 1)
        self.mahalanobis = Mahalanobis(gaussian)

    def forward(self, picture):
        return self.mahalanobis(self.convolution(picture)).amax(dim=(1, 2))


@pytest.mark.parametrize("form", ["triangular", "low_rank"])
@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_equals_the_kernel(features, form, storage, dtype):
    model = kernels.fit(features, 0.5, factorisation=form, storage=storage)
    given = torch.from_numpy(features[:5]).to(dtype)
    got = Mahalanobis(model)(given)
    assert np.array_equal(got.numpy(), kernels.mahalanobis_map(given.float().numpy(), model))


def test_a_view_needs_no_copy(features):
    model = kernels.fit(features, 0.5)
    last = torch.from_numpy(features[:5]).contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(Mahalanobis(model)(last), kernels.mahalanobis_map(features[:5], model), rtol=1e-6)


@pytest.mark.parametrize("form", ["triangular", "low_rank"])
def test_operator_is_well_formed(features, form):
    module = Mahalanobis(kernels.fit(features, 0.5, factorisation=form, storage="bfloat16"))
    parts = (module.mean, module.factor, module.scale, module.weights, module.tail)
    torch.library.opcheck(mahalanobis_map, (torch.from_numpy(features[:2]), *parts))


def test_exports_with_any_batch(features):
    network = Network(kernels.fit(features, 0.5)).eval()
    pictures = torch.randn(3, 3, 3, 4)
    exported = torch.export.export(network, (pictures,), dynamic_shapes=({0: torch.export.Dim("n")},), strict=True)
    names = [str(node.target) for node in exported.graph.nodes]
    assert "anomaly_engine.mahalanobis_map.default" in names
    for batch in (pictures, torch.randn(7, 3, 3, 4)):
        with torch.no_grad():
            torch.testing.assert_close(exported.module()(batch), network(batch))


def test_compiles_as_one_graph(features):
    network = Network(kernels.fit(features, 0.5)).eval()
    pictures = torch.randn(3, 3, 3, 4)
    with torch.no_grad():
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")(pictures)
        torch.testing.assert_close(compiled, network(pictures))


def test_its_state_is_the_model(features):
    model = kernels.fit(features, 0.5, storage="float16")
    other = Mahalanobis(kernels.fit(features + 1, 0.5, storage="float16"))
    other.load_state_dict(Mahalanobis(model).state_dict())
    given = torch.from_numpy(features[:2])
    assert torch.equal(other(given), Mahalanobis(model)(given))


def test_wrong_shapes_and_types_are_refused(features):
    module = Mahalanobis(kernels.fit(features, 0.5))
    with pytest.raises(kernels.ShapeError, match=r"expected \(N, C, h, w\) with \(C, h, w\) = \(6, 3, 4\)"):
        module(torch.zeros(2, 5, 3, 4))
    with pytest.raises(kernels.ShapeError, match="expected float32, float16 or bfloat16, got float64"):
        module(torch.zeros(2, 6, 3, 4, dtype=torch.float64))
    with pytest.raises(kernels.ShapeError, match=r"factor: expected float32, float16 or bfloat16, got torch.float64"):
        module.double()(torch.zeros(2, 6, 3, 4))
