"""Grad-CAM takes the layer that it should, and equals an independent computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx import symbolic_trace

from engine.contract import FEATURES_NAME
from engine.maps import operator
from trainers.explain.cam import SHAPE, feature_layer, grad_cam
from trainers.explain.question import as_batch
from trainers.explain.rebuild import Head, Rebuilt


def test_equals_the_formula(trained, ask, notched):
    """Weights are the features' mean gradients; features by the network, the rest written out here."""
    case = ask(trained("fyd").bundle, notched)
    rebuilt, (x, y) = case.question.rebuilt, case.question.place
    features = rebuilt.run(as_batch(notched))[FEATURES_NAME].detach().requires_grad_()
    manifest = case.bundle.manifest
    rows = operator(manifest.grid[0], manifest.input.height, manifest.smoothing_sigma_px)[y]
    columns = operator(manifest.grid[1], manifest.input.width, manifest.smoothing_sigma_px)[x]
    distances = rebuilt.mahalanobis(features)[0].double()
    (torch.from_numpy(rows) @ distances @ torch.from_numpy(columns)).backward()
    weights = features.grad[0].mean(dim=(1, 2))  # (C,)
    want = (weights[:, None, None] * features[0]).sum(dim=0).relu().detach()
    found = grad_cam(case.question, notched)
    assert found.channels == features.shape[1]
    np.testing.assert_allclose(found.values, want, rtol=1e-3, atol=1e-5 * float(want.max()))
    assert found.values.max() > 0


@pytest.mark.parametrize("method", ["ssae", "igd"])
def test_networks_without_such_a_layer_have_none(method, trained, ask, notched):
    assert grad_cam(ask(trained(method).bundle, notched).question, notched) is None


def test_asking_leaves_the_model_as_it_is(trained, ask, notched):
    question = ask(trained("fyd").bundle, notched).question
    nodes = len(question.rebuilt.network.graph.nodes)
    first, second = grad_cam(question, notched), grad_cam(question, notched)
    assert np.array_equal(first.values, second.values)
    assert len(question.rebuilt.network.graph.nodes) == nodes


class Branches(nn.Module):
    """(N, 16, 16, 3) -> grid: a trunk, then two ways, one of which may go past the trunk."""

    def __init__(self, past: bool):
        super().__init__()
        self.past = past
        self.trunk, self.left, self.right = nn.Conv2d(3, 9, 3), nn.Conv2d(9, 10, 3), nn.Conv2d(9, 10, 3)

    def forward(self, images):
        x = images.permute(0, 3, 1, 2)
        y = self.trunk(x)
        found = (self.left(y) * self.right(y)).mean(dim=1)
        return found + x[:, 0, 2:14, 2:14] if self.past else found


@pytest.mark.parametrize(("past", "channels"), [(False, 10), (True, None)])
def test_all_of_the_score_passes_through_the_layer(past, channels):
    rebuilt = Rebuilt(symbolic_trace(Branches(past)), ("grid",), None, Head((12, 12), 16, 16, 0.0))
    layer = feature_layer(rebuilt, torch.zeros(1, 16, 16, 3))
    assert (None if layer is None else layer.meta[SHAPE][1]) == channels


class Classified(nn.Module):
    """(N, 16, 16, 3) -> a score per patch: channels last behind the features, rows counted from the pictures' shape."""

    def __init__(self):
        super().__init__()
        self.trunk, self.classifier = nn.Conv2d(3, 9, 3), nn.Linear(9, 1)

    def forward(self, images):
        f = self.trunk(torch.permute(images, (0, 3, 1, 2)))  # (N, 9, 14, 14)
        rows = torch.permute(f, (0, 2, 3, 1)).reshape(images.shape[0], 14, 14, 9)
        return (self.classifier(rows) * f.mean()).reshape(images.shape[0], 14, 14)


def test_neither_shapes_nor_channels_last_hide_the_layer():
    rebuilt = Rebuilt(symbolic_trace(Classified()), ("grid",), None, Head((14, 14), 16, 16, 0.0))
    assert feature_layer(rebuilt, torch.zeros(1, 16, 16, 3)).meta[SHAPE] == (2, 9, 14, 14)
