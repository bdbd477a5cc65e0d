"""The losses of stage one against float64 NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from trainers.droc import saved
from trainers.droc.pretext import contrastive_loss, make_head, pretext_loss, rotation_loss, turned_four_ways
from trainers.droc.settings import Settings
from trainers.droc.views import view, widened
from trainers.learning.passes import seeded

NARROW = Settings(width="narrow")


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def reference(embedded, temperature):
    """Anchors of view one against all of view two, one by one."""
    z = embedded.double().numpy()
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    one, two = z[: len(z) // 2], z[len(z) // 2 :]
    terms = []
    for i, anchor in enumerate(one):
        similar = np.exp(two @ anchor / temperature)
        terms.append(-np.log(similar[i] / similar.sum()))
    return np.mean(terms)


def test_contrastive_loss_is_n_way_of_normalised_rows():
    rows = random(12, 16)
    for temperature in (0.2, 1.0):
        assert float(contrastive_loss(rows, temperature)) == pytest.approx(reference(rows, temperature), rel=1e-5)
    assert float(contrastive_loss(5 * rows, 0.2)) == pytest.approx(float(contrastive_loss(rows, 0.2)), rel=1e-5)


@pytest.mark.parametrize("k", [2, 32, 128])
def test_a_representation_that_tells_nothing_apart_loses_by_the_batch(k):
    assert float(contrastive_loss(torch.ones((2 * k, 8)), 0.2)) == pytest.approx(np.log(k), rel=1e-5)


def test_rotation_loss_is_cross_entropy_in_the_order_of_the_turns():
    logits = random(12, 4)
    values = logits.double().numpy()
    terms = [np.log(np.exp(row).sum()) - row[i // 3] for i, row in enumerate(values)]
    assert float(rotation_loss(logits)) == pytest.approx(np.mean(terms), rel=1e-5)
    x = random(3, 3, 8, 8)
    for k, turned in enumerate(turned_four_ways(x).chunk(4)):
        np.testing.assert_array_equal(turned, np.rot90(x, k, (2, 3)))


@pytest.mark.parametrize(("pretext", "instances"), [("contrastive", 5), ("distaug", 20)])
def test_distaug_tells_turned_pictures_apart(pretext, instances):
    """Its loss is that of 4 n instances of which each has two views; vanilla contrastive has n."""
    settings = replace(NARROW, pretext=pretext)
    with seeded(0):
        model = saved.make_representation(settings, saved.make_trunk(settings))
    x = torch.rand((5, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    wide = widened(x, settings.spread)
    assert len(wide) == instances
    views = torch.cat([view(wide, generator, mirrored=True) for _ in range(2)])
    with torch.no_grad():
        want = reference(model(views), 0.2)
        got = pretext_loss(model, x, settings, torch.Generator().manual_seed(1))
    assert float(got) == pytest.approx(want, rel=1e-4)


def test_rotation_learns_from_views_turned_four_ways():
    settings = replace(NARROW, pretext="rotation")
    with seeded(0):
        model = saved.make_representation(settings, saved.make_trunk(settings))
    x = torch.rand((5, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    views = view(x, torch.Generator().manual_seed(1), mirrored=True)
    with torch.no_grad():
        terms = []
        for k in range(4):
            logits = model.head.logits(model.trunk(torch.rot90(views, k, (2, 3)))).double().numpy()
            terms += list(np.log(np.exp(logits).sum(axis=1)) - logits[:, k])
        got = pretext_loss(model, x, settings, torch.Generator().manual_seed(1))
    assert float(got) == pytest.approx(np.mean(terms), rel=1e-4)


@pytest.mark.parametrize("pretext", ["rotation", "contrastive", "distaug"])
def test_the_loss_reaches_all_of_f_and_g(pretext):
    settings = replace(NARROW, pretext=pretext, head_layers=1)
    with seeded(0):
        model = saved.make_representation(settings, saved.make_trunk(settings)).train()
    x = torch.rand((5, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    pretext_loss(model, x, settings, torch.Generator().manual_seed(1)).backward()
    assert all(p.grad is not None and bool(p.grad.abs().max() > 0) for p in model.parameters())


def test_both_views_of_the_contrastive_loss_learn():
    """No target is held: the gradient of anchors and of what they are compared with is that of finite differences."""
    rows = random(6, 8).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: contrastive_loss(z, 0.2), rows)
    contrastive_loss(rows, 0.2).backward()
    assert (rows.grad.abs().amax(dim=1) > 0).all()


def linear(head):
    return [(m.in_features, m.out_features) for m in head.modules() if isinstance(m, nn.Linear)]


def test_heads_are_those_of_the_official_code():
    full = Settings(width="full")
    assert linear(make_head(512, full)) == [(512, 512)] * 8 + [(512, 128)]
    assert linear(make_head(512, replace(full, pretext="rotation"))) == [(512, 512)] * 8 + [(512, 4)]


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_the_head_s_depth_is_an_option(layers):
    head = make_head(64, replace(NARROW, head_layers=layers))
    assert len(linear(head)) == layers + 1
    assert sum(isinstance(m, nn.BatchNorm1d) for m in head.modules()) == layers
    assert head(random(4, 64)).shape == (4, 128)
