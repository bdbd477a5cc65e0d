"""MS-SSIM against pytorch-msssim and against the definition in float64."""

import cv2
import numpy as np
import pytest
import pytorch_msssim
import torch
from scipy.ndimage import correlate1d

from trainers.igd.msssim import C1, C2, GLOBAL, LOCAL, MsSsim, for_side


def pair(side, n=3, seed=0):
    """Smooth pictures and copies of them with noise and another brightness."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((n, 3, side // 8, side // 8), generator=generator)
    x = torch.nn.functional.interpolate(coarse, size=side, mode="bilinear", align_corners=False)
    noise = torch.randn((n, 3, side, side), generator=generator)
    return x, (0.9 * x + 0.1 * noise).clamp(0, 1)


def blurred(x, window):
    """(..., H, W) float64, valid places only."""
    distance = np.arange(window) - window // 2
    taps = np.exp(-(distance**2) / (2 * 1.5**2))
    taps /= taps.sum()
    edge = slice(window // 2, -(window // 2))
    return correlate1d(correlate1d(x, taps, axis=-1), taps, axis=-2)[..., edge, edge]


def levels_by_definition(x, y, scales):
    found = []
    for j in range(len(scales.weights)):
        if j:
            x, y = (v.reshape(*v.shape[:2], v.shape[2] // 2, 2, -1, 2).mean(axis=(3, 5)) for v in (x, y))
        mean_x, mean_y = blurred(x, scales.window), blurred(y, scales.window)
        var_x, var_y = blurred(x * x, scales.window) - mean_x**2, blurred(y * y, scales.window) - mean_y**2
        covariance = blurred(x * y, scales.window) - mean_x * mean_y
        contrast = (2 * covariance + C2) / (var_x + var_y + C2)
        luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
        found.append(contrast if j < len(scales.weights) - 1 else contrast * luminance)
    return found


@pytest.mark.parametrize(("side", "scales"), [(256, GLOBAL), (192, GLOBAL), (64, LOCAL), (48, LOCAL)])
def test_the_score_is_the_library_s(side, scales):
    x, y = pair(side)
    want = pytorch_msssim.ms_ssim(
        x, y, data_range=1, size_average=False, win_size=scales.window, weights=list(scales.weights)
    )
    similarity = MsSsim(scales, side)
    torch.testing.assert_close(similarity.score(similarity(x, y)), want, rtol=1e-4, atol=1e-5)
    assert 0.2 < float(want.min()) < 0.99


@pytest.mark.parametrize(("side", "scales"), [(192, GLOBAL), (32, LOCAL)])
def test_every_scale_and_the_score_are_the_definition_s(side, scales):
    x, y = pair(side)
    want = levels_by_definition(x.double().numpy(), y.double().numpy(), scales)
    similarity = MsSsim(scales, side)
    levels = similarity(x, y)
    for level, expected in zip(levels, want, strict=True):
        np.testing.assert_allclose(level, expected, atol=2e-4)
    product = np.prod([w.mean(axis=(2, 3)) ** p for w, p in zip(want, scales.weights, strict=True)], axis=0)
    np.testing.assert_allclose(similarity.score(levels), product.mean(axis=1), atol=1e-4)


@pytest.mark.parametrize(("side", "scales"), [(192, GLOBAL), (32, LOCAL)])
def test_the_map_stretches_every_scale_to_the_picture(side, scales):
    x, y = pair(side)
    want = 1.0
    for j, level in enumerate(levels_by_definition(x.double().numpy(), y.double().numpy(), scales)):
        edge = scales.window // 2
        powered = np.pad(
            np.maximum(level, 0) ** scales.weights[j], [(0, 0), (0, 0), (edge, edge), (edge, edge)], "edge"
        )
        planes = powered.reshape(-1, *powered.shape[2:])
        stretched = [cv2.resize(plane, (side, side), interpolation=cv2.INTER_LINEAR) for plane in planes]
        want = want * np.reshape(stretched, (*powered.shape[:2], side, side))
    similarity = MsSsim(scales, side)
    np.testing.assert_allclose(similarity.at_every_place(similarity(x, y)), want.mean(axis=1), atol=2e-3)


def test_equal_pictures_are_alike_everywhere():
    x, _ = pair(32)
    similarity = MsSsim(LOCAL, 32)
    levels = similarity(x, x)
    torch.testing.assert_close(similarity.score(levels), torch.ones(3))
    torch.testing.assert_close(similarity.at_every_place(levels), torch.ones(3, 32, 32))


def test_the_map_is_lowest_where_the_pictures_differ():
    x, _ = pair(192, n=1)
    y = x.clone()
    y[:, :, 120:140, 40:60] = 1 - y[:, :, 120:140, 40:60]
    similarity = MsSsim(GLOBAL, 192)
    places = similarity.at_every_place(similarity(x, y))[0]
    row, column = divmod(int(places.argmin()), 192)
    assert 115 <= row < 145
    assert 35 <= column < 65
    assert places[:60, 100:].min() > 0.99


def test_gradients_are_finite_where_nothing_correlates():
    """The library's are not a number here: the power's derivative at 0."""
    x, _ = pair(64)
    opposite = (1 - x).requires_grad_(True)
    similarity = MsSsim(LOCAL, 64)
    score = similarity.score(similarity(x, opposite))
    assert float(score.detach().max()) == 0
    score.sum().backward()
    assert torch.isfinite(opposite.grad).all()


def test_small_pictures_take_the_small_window():
    assert for_side(256) is GLOBAL
    assert for_side(128) is LOCAL
    assert LOCAL.min_side_px <= 32
    assert sum(LOCAL.weights) == pytest.approx(1, abs=1e-3)
