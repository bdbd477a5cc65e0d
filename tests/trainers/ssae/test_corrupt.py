"""The corruption pipeline of Figure 4: gluing, what stays untouched, and the statistics of what is drawn."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from trainers.ssae import corrupt
from trainers.ssae.corrupt import Corruption, glue, shape_mask, smooth_noise

KINDS = ("elastic", "cut-out", "swap")


def seed(number=0):
    return torch.Generator().manual_seed(number)


def noise(n=4, height=40, width=48):
    return torch.rand(n, 3, height, width, generator=seed(9))


def test_gluing_is_the_formula_of_figure_4():
    random = np.random.default_rng(0)
    x1, x3 = random.random((2, 2, 3, 5, 5))
    x2 = random.random((2, 1, 5, 5))
    want = x2 * x3 + (np.ones_like(x2) - x2) * x1
    got = glue(*(torch.tensor(a, dtype=torch.float32) for a in (x1, x2, x3)))
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("patches", [1, 3])
def test_pictures_change_inside_the_mask_and_nowhere_else(kind, patches):
    x = noise()
    pair = Corruption(kind=kind, patches=patches, brightness=0.2)(x, seed())
    assert torch.equal(pair.original, x)
    assert torch.equal(x, noise())  # and the original is not written to
    changed = (pair.corrupted != x).any(dim=1, keepdim=True)
    assert not (changed & (pair.mask == 0)).any()
    assert ((pair.corrupted - x).abs().sum(dim=(1, 2, 3)) > 0).all()  # the paper's condition for equation 2
    assert pair.corrupted.min() >= 0
    assert pair.corrupted.max() <= 1
    assert pair.mask.min() >= 0
    assert pair.mask.max() <= 1
    assert pair.mask.shape == (4, 1, 40, 48)


def test_the_mask_is_real_valued_and_smooth():
    mask = Corruption(patches=1, sides=(0.5, 0.5))(noise(64, 96, 96), seed()).mask
    inside = mask[mask > 0]
    assert ((inside > 0.02) & (inside < 0.98)).float().mean() > 0.1
    assert (inside > 0.98).float().mean() > 0.3
    steps = (mask[..., 1:] - mask[..., :-1]).abs()
    assert np.quantile(steps[steps > 0], 0.95) < 0.45  # an edge from 0 to 1 within a pixel is rare


def extent(mask):
    """First and last row and column that a mask (1, H, W) reaches."""
    rows, columns = np.flatnonzero(mask[0].any(1)), np.flatnonzero(mask[0].any(0))
    return rows[0], rows[-1], columns[0], columns[-1]


def test_patches_are_anywhere_and_of_all_sizes():
    x = torch.rand(400, 3, 64, 64, generator=seed())
    masks = Corruption(kind="cut-out", patches=1, sides=(0.2, 0.5))(x, seed(1)).mask.numpy() > 0
    box = np.array([extent(mask) for mask in masks])
    side = np.stack([box[:, 1] - box[:, 0], box[:, 3] - box[:, 2]]) + 1
    assert side.max() <= 0.5 * 64
    assert side.max() > 0.4 * 64  # a mask is a little smaller than its patch
    assert side.min() < 0.2 * 64
    assert abs(np.corrcoef(side)[0, 1]) < 0.2  # height and width are drawn apart
    centre = np.stack([box[:, 0] + box[:, 1], box[:, 2] + box[:, 3]]) / 2 / 63
    assert np.allclose(centre.mean(axis=1), 0.5, atol=0.04)
    covered = masks.any(axis=(0, 1))
    assert covered[6:-6, 6:-6].all()
    assert covered[[0, 1, -2, -1]].any()
    assert covered[:, [0, 1, -2, -1]].any()
    assert len({tuple(mask.ravel()) for mask in masks}) == 400


def ramp(axis, side=64):
    """Pictures whose value is a coordinate, in 1/256 px so that nothing is clipped."""
    line = torch.arange(side, dtype=torch.float32) / 256
    shape = (1, 3, side, 1) if axis == 0 else (1, 3, 1, side)
    return line.view(1, 1, *shape[2:]).expand(200, 3, side, side).clone()


@pytest.mark.parametrize("axis", [0, 1])
def test_elastic_displacements_are_a_share_of_the_patch(axis):
    """On a ramp the change of value is the displacement in px: its deviation is strength * U(0, 1) * side."""
    how = Corruption(patches=1, sides=(0.25, 0.25), strength=0.1)
    pair = how(ramp(axis), seed())
    shift = 256 * (pair.corrupted - pair.original)[:, 0]  # px, times the mask
    full = (pair.mask[:, 0] > 0.999) & (shift.abs() < 8)  # away from reflection at the window's border
    deviation = torch.stack([shift[i][full[i]].square().mean().sqrt() for i in range(200) if full[i].sum() > 20])
    expected = 0.1 * 16  # px, times U(0, 1)
    assert deviation.max() < 2.2 * expected
    assert deviation.mean() == pytest.approx(expected / 2, rel=0.35)


def test_smooth_noise_has_unit_variance_and_no_jumps():
    patch = corrupt._place(torch.empty(300, 3, 64, 64), (0.5, 0.5), seed())
    field = smooth_noise(2, patch, seed())
    assert field.shape == (300, 2, 32, 32)
    assert float(field.var()) == pytest.approx(0.8, abs=0.3)  # between its knots it varies a little less than at them
    assert float(field.mean()) == pytest.approx(0, abs=0.05)
    assert (field[..., 1:] - field[..., :-1]).abs().max() < 1.5
    assert abs(np.corrcoef(field[:, 0].flatten().numpy(), field[:, 1].flatten().numpy())[0, 1]) < 0.05


def test_shape_masks_vanish_on_the_patch_border():
    patch = corrupt._place(torch.empty(50, 3, 256, 256), (0.2, 0.6), seed())
    x2 = shape_mask(patch, seed())[:, 0]
    outside = (patch.v.abs()[:, :, None] >= 0.97) | (patch.u.abs()[:, None] >= 0.97)
    assert (x2[outside] == 0).all()
    assert (x2.amax(dim=(1, 2)) > 0.9).all()


def test_cut_out_is_black_and_swap_is_from_the_picture():
    x = noise(8) * 0.5 + 0.5
    cut = Corruption(kind="cut-out")(x, seed())
    assert (cut.corrupted[(cut.mask > 0.999).expand_as(x)] < 1e-3).all()
    swapped = Corruption(kind="swap", patches=1)(x, seed())
    where = (swapped.mask == 1).expand_as(x)
    for i in range(8):
        values = swapped.corrupted[i][where[i]]
        assert torch.isin(values, x[i]).all()


def test_brightness_shifts_a_patch_as_a_whole():
    x = torch.full((200, 3, 32, 32), 0.5)
    pair = Corruption(patches=1, brightness=0.3)(x, seed())
    full = pair.mask > 0.999
    shift = torch.stack([(pair.corrupted[i] - 0.5)[:, full[i, 0]].mean() for i in range(200) if full[i].any()])
    spread = torch.stack([(pair.corrupted[i])[:, full[i, 0]].std() for i in range(200) if full[i].sum() > 1])
    assert 0.25 < shift.abs().max() <= 0.3 + 1e-4
    assert abs(float(shift.mean())) < 0.05
    assert spread.max() < 1e-3


def test_the_same_seed_corrupts_the_same_way():
    x, how = noise(), Corruption(patches=2, brightness=0.1)
    for kind in KINDS:
        a, b, c = (replace(how, kind=kind)(x, seed(k)).corrupted for k in (1, 1, 2))
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_a_corruption_is_the_size_that_training_can_feed():
    """A whole picture as patch, and pictures hardly larger than the least patch."""
    for sides, side in (((1.0, 1.0), 32), ((0.01, 0.02), 16)):
        pair = Corruption(sides=sides)(torch.rand(2, 3, side, side, generator=seed()), seed())
        assert pair.corrupted.shape == (2, 3, side, side)
