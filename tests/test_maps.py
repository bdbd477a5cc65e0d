import time

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from engine.maps import MapHead, bilinear, gaussian


@pytest.mark.parametrize(("cells", "pixels"), [(28, 224), (56, 224), (7, 100), (1, 16), (32, 32)])
def test_bilinear_equals_opencv(cells, pixels):
    grid = np.random.default_rng(0).random((cells, 1)).astype(np.float32)
    expected = cv2.resize(np.hstack([grid, grid]), (2, pixels), interpolation=cv2.INTER_LINEAR)[:, :1]
    np.testing.assert_allclose(bilinear(cells, pixels) @ grid, expected, atol=1e-6)


@pytest.mark.parametrize(("pixels", "sigma_px"), [(224, 4.0), (50, 1.3), (12, 8.0)])
def test_gaussian_equals_scipy_with_mirrored_borders(pixels, sigma_px):
    signal = np.random.default_rng(1).random(pixels)
    expected = gaussian_filter1d(signal, sigma_px, mode="reflect", radius=int(np.ceil(4 * sigma_px)))
    np.testing.assert_allclose(gaussian(pixels, sigma_px) @ signal, expected, atol=1e-12)


def test_head_is_upsampling_then_smoothing_then_maximum():
    grids = np.random.default_rng(2).gamma(2.0, size=(3, 28, 21)).astype(np.float32)
    scores, maps = MapHead((28, 21), 224, 168, sigma_px=4.0)(grids)
    assert maps.shape == (3, 224, 168)
    for i in range(3):
        upsampled = cv2.resize(grids[i], (168, 224), interpolation=cv2.INTER_LINEAR).astype(np.float64)
        expected = gaussian_filter(upsampled, 4.0, mode="reflect", radius=16)
        np.testing.assert_allclose(maps[i], expected, rtol=1e-5)
        assert scores[i] == pytest.approx(expected.max(), rel=1e-5)


def test_a_constant_grid_stays_constant_up_to_the_borders():
    scores, maps = MapHead((28, 28), 224, 224, sigma_px=4.0)(np.full((1, 28, 28), 3.0, np.float32))
    np.testing.assert_allclose(maps, 3.0, rtol=1e-5)
    assert scores[0] == pytest.approx(3.0, rel=1e-5)


def test_an_empty_batch_gives_empty_maps():
    scores, maps = MapHead((4, 4), 16, 16, sigma_px=1.0)(np.empty((0, 4, 4), np.float32))
    assert scores.shape == (0,)
    assert maps.shape == (0, 16, 16)


@pytest.mark.parametrize(("cells", "pixels"), [(28, 224), (64, 256), (256, 256)])
def test_head_works_on_the_calling_thread_alone(cells, pixels):
    head = MapHead((cells, cells), pixels, pixels, sigma_px=4.0)
    grids = np.random.default_rng(3).random((8, cells, cells)).astype(np.float32)
    head(grids)
    # Some other thread may be busy for a while with something else, the head's own making first of all.
    assert any(_share_of_other_threads(lambda: head(grids)) < 0.2 for _ in range(40))


def _share_of_other_threads(work, calls=20):
    """CPU seconds that other threads used while the calling one used one; OpenBLAS's would use as much as it does."""
    everyone, here = time.process_time(), time.thread_time()
    for _ in range(calls):
        work()
    here = time.thread_time() - here
    return (time.process_time() - everyone - here) / here


@pytest.mark.parametrize(("grid", "size"), [((88, 138), (700, 1100)), ((88, 138), (704, 1104))])
def test_large_maps_are_made_in_blocks_and_their_last_cells_may_reach_beyond(grid, size):
    grids = np.random.default_rng(4).gamma(2.0, size=(2, *grid)).astype(np.float32)
    _, maps = MapHead(grid, *size, sigma_px=3.0, cell_px=8)(grids)
    for one, found in zip(grids, maps, strict=True):
        whole = cv2.resize(one, (8 * grid[1], 8 * grid[0]), interpolation=cv2.INTER_LINEAR).astype(np.float64)
        expected = gaussian_filter(whole[: size[0], : size[1]], 3.0, mode="reflect", radius=12)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
