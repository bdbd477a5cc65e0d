"""Patches against slices of the picture."""

import pytest
import torch

from trainers.dataset.patches import cut, per_side


@pytest.mark.parametrize(("side", "patch", "stride"), [(64, 32, 16), (48, 32, 8), (32, 32, 16), (40, 16, 4)])
def test_patches_are_slices_row_by_row(side, patch, stride):
    pictures = torch.rand((2, 3, side, side), generator=torch.Generator().manual_seed(0))
    starts = range(0, side - patch + 1, stride)
    want = [x[:, i : i + patch, j : j + patch] for x in pictures for i in starts for j in starts]
    assert torch.equal(cut(pictures, patch, stride), torch.stack(want))
    assert per_side(side, patch, stride) == len(starts)
