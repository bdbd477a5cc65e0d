"""Patches of pictures as torch takes them, and the features of unaltered ones that stage two rests on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engine.types import F64
from trainers.dataset.pixels import in_unit_range
from trainers.dataset.resized import Resized
from trainers.droc.network import Trunk
from trainers.progress import Progress
from trainers.width import device

_BATCH = 8


def random_patches(pictures: Resized, rows: Tensor, patch_px: int, generator: torch.Generator) -> Tensor:
    """One from a random place of each of the pictures with these numbers: (n, 3, patch, patch) in [0, 1]."""
    room = torch.tensor(pictures.pixels.shape[1:3]) - patch_px + 1
    corner = (torch.rand(len(rows), 2, generator=generator) * room).long()
    pixels = (corner[:, :, None] + torch.arange(patch_px)).numpy()  # (n, 2, patch)
    row, column = pixels[:, 0, :, None], pixels[:, 1, None, :]
    found = pictures.pixels[pictures.rows[rows.numpy()][:, None, None], row, column]  # (n, patch, patch, 3)
    return in_unit_range(torch.from_numpy(found))


def patch_features(trunk: Trunk, pictures: Resized, most: int, seed: int, progress: Progress) -> F64:
    """f of the pictures' patches (K, D), K <= `most`: equally many random ones of each picture."""
    generator = np.random.default_rng(seed)
    each = -(-most // len(pictures))
    trunk.to(device()).eval()
    found = []
    with torch.no_grad(), progress.task("features", len(pictures)) as task:
        for start in range(0, len(pictures), _BATCH):
            some = range(start, min(start + _BATCH, len(pictures)))
            x = in_unit_range(torch.from_numpy(pictures.take(some)).to(device()))
            dense = trunk.dense(x).flatten(2).permute(0, 2, 1).cpu().double().numpy()  # (n, p^2, D)
            found += [of_one[generator.permutation(len(of_one))[:each]] for of_one in dense]
            task.advance(len(some))
    trunk.cpu()
    features = np.concatenate(found)
    return np.asarray(features[np.sort(generator.permutation(len(features))[:most])])
