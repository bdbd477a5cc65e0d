"""The kernels on a real device, for `make test-gpu`: poisoned outputs, streams, graphs, arrays of other libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import kernels
from engine import maps
from kernels.cuda.head import MapHead
from trainers.network.mahalanobis import Mahalanobis

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device that torch can use"),
]

FORMS = ["triangular", "low_rank"]
ROUNDING = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 1e-1}  # at condition 1e4


def poisoned(*shape):
    """An output in which an element that is not written stays NaN."""
    return torch.full(shape, float("nan"), device="cuda")


def error(got, expected):
    return np.max(np.abs(np.asarray(got, np.float64) / expected - 1), initial=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("storage", ROUNDING)
@pytest.mark.parametrize("batch", [1, 2, 3, 8, 9, 17, 33, 64, 256])
def test_equals_the_definition(world, form, storage, batch):
    w = world(45, grid=(5, 7), samples=150, batch=batch, condition=1e4)
    model = kernels.fit(w.train, 1.0, factorisation=form, storage=storage)
    out = poisoned(batch, 5, 7)
    assert kernels.mahalanobis_map(torch.from_numpy(w.test).cuda(), model, out=out) is out
    assert error(out.cpu(), kernels.reference(w.test, w.mean, w.sigma(1.0))) < ROUNDING[storage]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [1, 12])
@pytest.mark.parametrize("channels", [1, 7, 8, 16, 100, 513, 1100, 2048])
def test_every_number_of_channels(form, batch, channels):
    rng = np.random.default_rng(0)
    train = rng.standard_normal((9, channels, 1, 3)).astype(np.float32)
    features = rng.standard_normal((batch, channels, 1, 3)).astype(np.float32)
    model = kernels.fit(train, 0.5, factorisation=form)
    got = kernels.mahalanobis_map(torch.from_numpy(features).cuda(), model, out=poisoned(batch, 1, 3))
    assert error(got.cpu(), kernels.mahalanobis_map(features, model)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_features_of_other_types_and_strides(world, dtype, layout):
    w = world(21, grid=(6, 9), samples=50, batch=5)
    model = kernels.fit(w.train, 0.5)
    given = torch.from_numpy(w.test).to("cuda", dtype).contiguous(memory_format=layout)[1:, :, ::2]
    part = kernels.Gaussian(
        model.mean[::2].copy(), model.factor.reshape(6, 9, -1)[::2].reshape(27, -1).copy(), "float32", model.eps, 50
    )
    got = kernels.mahalanobis_map(given, part, out=poisoned(4, 3, 9))
    assert error(got.cpu(), kernels.mahalanobis_map(given.float().cpu().numpy(), part)) < 1e-6


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("batch", [3, 12])
def test_values_that_are_not_finite_stay_at_their_position(world, batch, bad):
    w = world(18, grid=(2, 5), samples=50, batch=batch)
    model = kernels.fit(w.train, 0.5)
    features = torch.from_numpy(w.test).cuda()
    good = kernels.mahalanobis_map(features, model, out=poisoned(batch, 2, 5)).clone()
    features[1, 7, 1, 3] = bad
    got = kernels.mahalanobis_map(features, model, out=poisoned(batch, 2, 5))
    assert not torch.isfinite(got[1, 1, 3])
    got[1, 1, 3] = good[1, 1, 3]
    assert torch.equal(got, good)


def test_a_new_array_comes_back_and_torch_takes_it(world):
    w = world(6)
    model = kernels.fit(w.train, 0.5)
    got = kernels.mahalanobis_map(torch.from_numpy(w.test).cuda(), model)
    assert error(torch.as_tensor(got, device="cuda").cpu(), kernels.mahalanobis_map(w.test, model)) < 1e-6
    empty = kernels.mahalanobis_map(torch.empty(0, 6, 3, 5, device="cuda"), model)
    assert empty.shape == (0, 3, 5)


def test_work_is_ordered_on_the_current_stream(world):
    w = world(40, grid=(20, 20), samples=90, batch=8)
    model = kernels.fit(w.train, 0.5)
    features, out = torch.zeros(w.test.shape, device="cuda"), poisoned(8, 20, 20)
    given = torch.from_numpy(w.test).cuda()
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(50_000_000)  # long enough to see a kernel that does not wait
        features.copy_(given)
        kernels.mahalanobis_map(features, model, out=out)
        got = out.clone()
    torch.cuda.synchronize()
    assert error(got.cpu(), kernels.mahalanobis_map(w.test, model)) < 1e-5


def test_calls_are_captured_into_a_graph(world):
    w = world(20, grid=(4, 4), samples=50, batch=12)
    model = kernels.fit(w.train, 0.5)
    features, out = torch.from_numpy(w.train[:12]).cuda(), poisoned(12, 4, 4)
    kernels.mahalanobis_map(features, model, out=out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kernels.mahalanobis_map(features, model, out=out)
    features.copy_(torch.from_numpy(w.test))
    graph.replay()
    assert error(out.cpu(), kernels.mahalanobis_map(w.test, model)) < 1e-5


def test_arrays_of_cupy(world):
    cupy = pytest.importorskip("cupy", reason="cupy is not installed")
    w = world(6)
    model = kernels.fit(w.train, 0.5)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        out = cupy.full((3, 3, 5), cupy.nan, cupy.float32)
        kernels.mahalanobis_map(cupy.asarray(w.test), model, out=out)
        stream.synchronize()
    assert error(out.get(), kernels.mahalanobis_map(w.test, model)) < 1e-6


def test_maps_and_scores(world):
    grids = np.random.default_rng(0).gamma(2.0, size=(5, 14, 11)).astype(np.float32)
    scores, expected = maps.MapHead((14, 11), 50, 70, 2.0)(grids)
    head = MapHead(maps.operator(14, 50, 2.0), maps.operator(11, 70, 2.0))
    got, got_scores = head(torch.from_numpy(grids).cuda(), poisoned(5, 50, 70), poisoned(5))
    np.testing.assert_allclose(got.cpu(), expected, rtol=1e-5)
    np.testing.assert_allclose(got_scores.cpu(), scores, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_the_operator_of_torch(world, form):
    w = world(6, samples=30)
    model = kernels.fit(w.train, 0.5, factorisation=form, storage="bfloat16")
    got = Mahalanobis(model).cuda()(torch.from_numpy(w.test).cuda())
    assert error(got.cpu(), kernels.mahalanobis_map(w.test, model)) < 1e-2


def test_wrong_arrays_are_refused(world):
    w = world(6)
    model = kernels.fit(w.train, 0.5)
    features = torch.from_numpy(w.test).cuda()
    with pytest.raises(kernels.ShapeError, match=r"expected \(N, C, h, w\) with \(C, h, w\) = \(6, 3, 5\)"):
        kernels.mahalanobis_map(features[:, :5], model)
    with pytest.raises(kernels.ShapeError, match="features: expected float32, float16 or bfloat16"):
        kernels.mahalanobis_map(features.double(), model)
    with pytest.raises(kernels.ShapeError, match="out: expected a C-contiguous float32 array"):
        kernels.mahalanobis_map(features, model, out=poisoned(3, 5, 3))
