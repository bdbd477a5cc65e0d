"""How much faster is DROC's dense map by the network without padding than patch by patch?

    python -m benchmarks.run dense [--threads N]

One picture of 256 px, patches of 32 px at a stride of 4 px, random weights at a quarter of the width: speed does not
depend on them. The first two rows give the same numbers. Each is run in turn; ratios are medians over the rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch
from torch import Tensor

from benchmarks.harness import Answer, Context, Document
from trainers.dataset.patches import cut
from trainers.droc.network import PaddingFree, ResNet18, Trunk
from trainers.learning.passes import seeded, torch_threads
from trainers.width import SHARES

QUESTION = "dense"
SIDE_PX, PATCH_PX, STRIDE_PX, ROUNDS = 256, 32, 4, 5
AT_ONCE, ONE_BY_ONE, RESNET = "without padding, at once", "without padding, patch by patch", "ResNet-18, patch by patch"


def answer(context: Context) -> Answer:
    """Time the three ways round by round."""
    with seeded(0), torch_threads(context.threads), torch.no_grad():
        padding_free = PaddingFree(PATCH_PX, SHARES["narrow"]).eval()
        resnet = ResNet18(PATCH_PX, STRIDE_PX, SHARES["narrow"]).eval()
        picture = torch.rand(1, 3, SIDE_PX, SIDE_PX)
        ways: Mapping[str, Callable[[], Tensor]] = {
            AT_ONCE: lambda: padding_free.dense(picture),
            ONE_BY_ONE: lambda: _one_by_one(padding_free, picture),
            RESNET: lambda: _one_by_one(resnet, picture),
        }
        for way in ways.values():
            way()
        rounds = [{name: _seconds(way) for name, way in ways.items()} for _ in range(ROUNDS)]
    rows = [
        {
            "way": name,
            "ms": round(1000 * median(each[name] for each in rounds), 2),
            "times_as_long": round(median(each[name] / each[AT_ONCE] for each in rounds), 1),
        }
        for name in ways
    ]
    return Answer(QUESTION, {"threads": context.threads, "rows": rows})


def _one_by_one(trunk: Trunk, picture: Tensor) -> Tensor:
    """All patches of the picture as one batch."""
    features: Tensor = trunk(cut(picture, PATCH_PX, STRIDE_PX))
    return features


def _seconds(way: Callable[[], Tensor]) -> float:
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def table(document: Document) -> str:
    """Markdown."""
    lines = ["| map of a picture of 256 px | ms | times as long |", "|---|---|---|"]
    lines += [f"| {row['way']} | {row['ms']:.0f} | {row['times_as_long']:.1f} |" for row in document["rows"]]
    return "\n".join(lines)
