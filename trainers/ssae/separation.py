"""How well a network's error tells corrupted pixels from others: the measure by which objective 2 stops.

The corruptions are of kinds that training does not use, drawn once, on good pictures set aside from training, because
objective 2 soon learns to find its own kind of corruption only.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from trainers.dataset.pixels import in_unit_range
from trainers.dataset.resized import Resized
from trainers.ssae.corrupt import Corruption, Kind
from trainers.ssae.model import Autoencoder

COPIES = 16  # corrupted pictures of each kind
_BATCH = 8
_CELL_PX = 4  # errors are averaged over cells of so many pixels a side
_KINDS: tuple[Kind, ...] = ("elastic", "cut-out", "swap")


class Separation:
    """Corrupted copies of `pictures` by every kind of corruption but that of training."""

    def __init__(self, pictures: Resized, training: Corruption, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        rows = np.arange(COPIES) % len(pictures)
        x = in_unit_range(torch.from_numpy(pictures.take(rows)))
        pairs = [replace(training, kind=kind)(x, generator) for kind in _KINDS if kind != training.kind]
        self.pictures = torch.cat([pair.corrupted for pair in pairs])
        masks = F.avg_pool2d(torch.cat([pair.mask for pair in pairs]), _CELL_PX)
        self.truth = (masks > 0.5).flatten().numpy()

    def __call__(self, network: Autoencoder) -> float:
        """AUROC over cells of all pictures; the network is in evaluation mode for it."""
        was_training = network.training
        network.eval()
        device = next(network.parameters()).device
        with torch.no_grad():
            errors = [_errors(network, x.to(device)) for x in torch.split(self.pictures, _BATCH)]
        network.train(was_training)
        return float(roc_auc_score(self.truth, torch.cat(errors).flatten().numpy()))


def _errors(network: Autoencoder, x: Tensor) -> Tensor:
    squared = (network(x) - x).square().mean(dim=1, keepdim=True)
    return F.avg_pool2d(squared, _CELL_PX).cpu()
