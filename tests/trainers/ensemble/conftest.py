"""Members that the tests of ensembles share."""

from dataclasses import replace
from pathlib import Path

import pytest

from trainers import registry
from trainers.base import TrainOptions
from trainers.progress import RecordedProgress


@pytest.fixture(scope="session")
def pair(parts, resnet_file, once) -> tuple[Path, Path]:
    """Two members of one method, of different sizes and backbones."""

    def make(folder: Path) -> tuple[Path, Path]:
        made = []
        for name, side, backbone in (("lite", 64, None), ("r18", 96, resnet_file)):
            options = TrainOptions(data=parts, out=folder / name, image_size=side, threads=1, backbone=backbone)
            made.append(registry.get("fyd").train(replace(options, target_fpr=0.05), RecordedProgress()).bundle)
        return made[0], made[1]

    return once("pair", make)
