"""Patches of 32 px at a stride of 16 px, and their maps put together, against plain loops."""

import numpy as np
import pytest
import torch

from trainers.dataset.resized import Resized
from trainers.igd.patches import cut, joined, patches_a_side
from trainers.igd.pictures import patches, unit


@pytest.fixture(params=[64, 128])
def pictures(request):
    side = request.param
    return torch.rand((2, 3, side, side), generator=torch.Generator().manual_seed(0))


def places(side):
    return [(i, j) for i in range(0, side - 16, 16) for j in range(0, side - 16, 16)]


def test_patches_are_the_slices(pictures):
    side = pictures.shape[-1]
    want = [picture[:, i : i + 32, j : j + 32] for picture in pictures for i, j in places(side)]
    assert torch.equal(cut(pictures), torch.stack(want))
    assert len(want) == 2 * patches_a_side(side) ** 2


def test_joined_maps_are_the_mean_of_those_that_show_a_place(pictures):
    side = pictures.shape[-1]
    maps = torch.rand((2 * len(places(side)), 32, 32), generator=torch.Generator().manual_seed(1))
    total, count = np.zeros((2, side, side)), np.zeros((side, side))
    for n in range(2):
        for k, (i, j) in enumerate(places(side)):
            total[n, i : i + 32, j : j + 32] += maps[n * len(places(side)) + k].double().numpy()
    for i, j in places(side):
        count[i : i + 32, j : j + 32] += 1
    assert (count.min(), count.max()) == (1, 4)
    np.testing.assert_allclose(joined(maps, patches_a_side(side)), total / count, rtol=1e-6)


def test_256_px_make_225_patches():
    assert patches_a_side(256) ** 2 == 225


def stored():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    return Resized(pixels, np.arange(40)[::-1])


def test_training_patches_are_all_of_them_or_a_seeded_draw():
    pictures = stored()
    rows = torch.arange(40)
    whole = cut(unit(pictures, rows))
    everything = patches(pictures, 64, 10_000, seed=0)
    assert len(everything) == 40 * 9
    torch.testing.assert_close(unit(everything, torch.arange(360)), whole)
    some = patches(pictures, 64, 100, seed=0)
    assert len(some) == 100
    known = {patch.tobytes() for patch in everything.take(range(360))}
    drawn = [patch.tobytes() for patch in some.take(range(100))]
    assert len(set(drawn) & known) == 100
    assert np.array_equal(some.take(range(100)), patches(pictures, 64, 100, seed=0).take(range(100)))
    assert not np.array_equal(some.take(range(100)), patches(pictures, 64, 100, seed=1).take(range(100)))
