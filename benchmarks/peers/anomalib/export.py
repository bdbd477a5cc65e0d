"""Fit anomalib's PaDiM on good pictures and export it to OpenVINO: python export.py PICTURES OUT.

ResNet-18 with random weights: speed does not depend on them, and ImageNet's are a download. 100 dimensions, 256 px,
the defaults of anomalib. A seed makes both sides of a comparison repeatable.
"""

# mypy: ignore-errors
# It runs in the peer's environment, whose packages are not installed in ours.
from __future__ import annotations

import sys
from pathlib import Path

import compat  # noqa: F401 - mends torchvision
import cv2
import numpy as np
import torch
from anomalib.models import Padim

PICTURES = 32
SIDE_PX = 256
BATCH = 8


def main(pictures: Path, out: Path) -> None:
    """Fit and export."""
    torch.manual_seed(0)
    lightning_model = Padim(pre_trained=False, n_features=100)
    files = sorted(path for path in pictures.rglob("*") if path.suffix in (".jpg", ".png"))[:PICTURES]
    images = np.stack([cv2.resize(cv2.imread(str(file))[..., ::-1], (SIDE_PX, SIDE_PX)) for file in files])
    batch = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255  # (N, 3, H, W)
    model = lightning_model.model
    model.train()
    model.feature_extractor.eval()
    with torch.no_grad():
        for part in batch.split(BATCH):
            model(lightning_model.pre_processor.transform(part))
        model.fit()
    lightning_model.eval()
    lightning_model.to_openvino(out, input_size=(SIDE_PX, SIDE_PX))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
