"""The model that has gradients is the one that is served, for every method, or nothing is explained."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from engine.alignment import to_picture
from engine.errors import BackendError
from engine.maps import MapHead
from trainers import registry
from trainers.explain import rebuild as module
from trainers.explain.question import as_batch
from trainers.explain.rebuild import Head, verify


@pytest.mark.parametrize("method", registry.names())
def test_scores_and_maps_are_the_served_ones(method, trained, ask, notched):
    case = ask(trained(method).bundle, notched)
    pictures = np.stack([notched, notched[::-1], 255 - notched])
    raw = case.served.predict(pictures)
    seen = case.question.rebuilt(torch.from_numpy(pictures).float())
    np.testing.assert_allclose(seen.scores, raw.scores, rtol=1e-4)
    np.testing.assert_allclose(seen.maps, raw.maps, rtol=1e-3, atol=1e-4 * raw.maps.max())
    verify(float(seen.scores[0]), float(raw.scores[0]), 1.0)


@pytest.mark.parametrize("method", registry.names())
def test_the_gradient_is_the_slope_of_what_is_served(method, trained, ask, notched):
    """A step along the gradient changes the score as it says, if it is small: another patch may soon be the worst."""
    question = ask(trained(method).bundle, notched).question
    images = as_batch(notched).requires_grad_()
    (gradient,) = torch.autograd.grad(question.differentiable(images).sum(), images)
    assert gradient.abs().max() > 0
    step = gradient / gradient.norm()
    with torch.no_grad():
        slopes = [
            (question.differentiable(images + h * step) - question.differentiable(images - h * step)) / (2 * h)
            for h in (0.1, 0.5, 1.0, 2.0)
        ]
    error = min(abs(float(slope) / float(gradient.norm()) - 1) for slope in slopes)
    assert error < 0.1


def test_a_network_that_aligns_is_followed_back_to_the_picture():
    random = np.random.default_rng(0)
    grids = random.standard_normal((2, 5, 7)).astype(np.float32)
    positions = random.uniform(-1.3, 1.3, (2, 5, 7, 2)).astype(np.float32)
    back = module._to_picture(torch.from_numpy(grids), torch.from_numpy(positions))
    np.testing.assert_allclose(back, to_picture(grids, positions), atol=1e-5)


@pytest.mark.parametrize("sigma_px", [0.0, 3.0])
def test_the_head_is_the_served_one(sigma_px):
    grids = np.random.default_rng(0).standard_normal((2, 8, 6)).astype(np.float32)
    maps = Head((8, 6), 64, 40, sigma_px)(torch.from_numpy(grids))
    np.testing.assert_allclose(maps, MapHead((8, 6), 64, 40, sigma_px)(grids)[1], atol=1e-5)


@pytest.mark.parametrize(("served", "width"), [(40.0, 4.0), (-0.02, 0.5)])
def test_another_score_is_refused(served, width):
    allowed = 1e-4 * max(abs(served), width)
    verify(served + 0.9 * allowed, served, width)
    with pytest.raises(BackendError, match=f"raw score: expected the {served:g} .* nothing is explained"):
        verify(served + 1.1 * allowed, served, width)
    with pytest.raises(BackendError):
        verify(float("nan"), served, width)


def test_an_operator_that_is_not_known_is_refused(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Unheard", ["image"], ["grid"], domain="elsewhere")],
        "odd",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 8, 8, 3])],
        [helper.make_tensor_value_info("grid", TensorProto.FLOAT, ["N", 8, 8])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("elsewhere", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "odd.onnx")
    with pytest.raises(BackendError, match=r"odd.onnx: cannot be rebuilt in torch: .*Unheard"):
        module._converted(tmp_path / "odd.onnx")
