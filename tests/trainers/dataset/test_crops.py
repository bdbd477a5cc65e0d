"""Crops against what they must show of a picture whose value is its column, and of one whose value is its row."""

import numpy as np
import torch

from trainers.dataset.crops import random_crop


def crop(x, side, across, down, mirrored=False):
    place = torch.tensor([[across], [down]])
    return random_crop(x, torch.tensor([side]), place, torch.tensor([mirrored]))


def test_a_crop_of_the_whole_is_the_picture_or_its_mirror_image():
    x = torch.rand((1, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(crop(x, 1.0, 0.3, 0.9), x)
    torch.testing.assert_close(crop(x, 1.0, 0.3, 0.9, mirrored=True), x.flip(3))


def test_a_crop_shows_its_place_at_the_picture_s_size():
    columns = torch.arange(16.0).expand(1, 1, 16, 16)
    pixels = np.arange(16) + 0.5
    for across in (0.0, 0.5, 1.0):
        left = across * 8  # half the side, anywhere in the other half
        want = np.clip(left + pixels / 2 - 0.5, 0, 15)
        got = crop(columns, 0.5, across, 0.2)[0, 0].numpy()
        np.testing.assert_allclose(got, np.broadcast_to(want, (16, 16)), atol=1e-5)
        rows = crop(columns.transpose(2, 3), 0.5, 0.2, across)[0, 0].numpy()
        np.testing.assert_allclose(rows, got.T, atol=1e-5)
