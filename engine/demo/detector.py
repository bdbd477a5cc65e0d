"""The demo's detector: an ensemble of two methods, both cheap enough to train while somebody watches."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainers.base import TrainReport
    from trainers.ensemble.fuse import OpenMember
    from trainers.progress import Progress

TARGET_FPR = 0.01
REVIEW_FPR = 0.05
_SIDE_PX = 128  # of both: they share the resized picture
_PATCH_PX = 64


def train(good: Path, scratch: Path, out: Path, open_member: OpenMember, progress: Progress) -> TrainReport:
    """Train the members on a folder of good pictures and fuse them into the bundle `out`.

    FYD compares each place with the same place of good pictures; DROC, on the same ImageNet backbone, compares patches
    with good ones from anywhere. Neither learns by gradient here, so that both take seconds.
    """
    from trainers import droc, fyd
    from trainers.base import TrainOptions
    from trainers.ensemble.fuse import FuseOptions, fuse

    started_s = time.perf_counter()
    of_fyd = fyd.Settings(side_px=_SIDE_PX, int8=False)
    of_droc = droc.Settings(side_px=_SIDE_PX, patch_px=_PATCH_PX, network="resnet18", pretext="imagenet")
    options = TrainOptions(data=good, out=scratch / "fyd", target_fpr=TARGET_FPR)
    progress.say("member 1 of 2: fyd")
    first = fyd.Fyd(of_fyd).train(options, progress)
    progress.say("member 2 of 2: droc")  # by one thread: its layers are too small to share, and two wait for each other
    second = droc.Droc(of_droc).train(replace(options, out=scratch / "droc", threads=1), progress)
    fusing = FuseOptions((first.bundle, second.bundle), good, out, TARGET_FPR, REVIEW_FPR)
    return replace(fuse(fusing, open_member, progress), train_s=time.perf_counter() - started_s)
