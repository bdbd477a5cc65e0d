"""How much of SSAE's training goes into corrupting pictures?

    python -m benchmarks.run corruption [--threads N]

Steps of the training as they are by default without a GPU, from crop to Adam, beside the corruption of a batch as large
alone, for each size of the progressive training. The speed of neither depends on what the pictures show. Each is run in
turn; times are of the process's CPU, and shares are medians over the rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import numpy as np
import torch

from benchmarks.harness import Answer, Context, Document
from trainers.dataset.pixels import in_unit_range
from trainers.dataset.resized import Resized
from trainers.learning.passes import seeded, torch_threads
from trainers.ssae.corrupt import Corruption, Kind
from trainers.ssae.learn import SsaeLearner
from trainers.ssae.model import Autoencoder
from trainers.ssae.settings import Settings

QUESTION = "corruption"
KINDS: tuple[Kind, ...] = ("elastic", "cut-out", "swap")
ROUNDS, STEPS = 7, 4


def answer(context: Context) -> Answer:
    """Every size and kind in turn."""
    with torch_threads(context.threads):
        rows = [
            _measure(replace(Settings(width="narrow"), corruption=Corruption(kind)), stage)
            for stage in range(len(Settings().stages))
            for kind in KINDS
        ]
    return Answer(QUESTION, {"threads": context.threads, "rows": rows})


def _measure(settings: Settings, stage: int) -> Document:
    """A few steps of a training, and the corruption of as many batches of that stage's size."""
    noise = np.random.default_rng(0).integers(0, 256, (STEPS * settings.batch_size, *[settings.side_px] * 2, 3))
    pictures = Resized(noise.astype(np.uint8), np.arange(len(noise)))
    with seeded(0):
        learner = SsaeLearner(Autoencoder(settings.channel_share), 1, settings, 0, None)
    side = learner.side_px(settings.first_of_stage(stage))
    batch = in_unit_range(torch.from_numpy(pictures.take(np.arange(settings.batch_size))))[..., :side, :side]
    generator = torch.Generator().manual_seed(0)

    def train() -> None:
        for _ in learner.epoch(pictures, settings.first_of_stage(stage)):
            pass

    def corrupt() -> None:
        for _ in range(STEPS):
            settings.corruption(batch, generator)

    train()
    corrupt()
    rounds = [(_cpu_s(train), _cpu_s(corrupt)) for _ in range(ROUNDS)]
    return {
        "side_px": side,
        "kind": settings.corruption.kind,
        "step_ms": round(1000 * median(step for step, _ in rounds) / STEPS, 1),
        "corruption_ms": round(1000 * median(alone for _, alone in rounds) / STEPS, 1),
        "share": round(median(alone / step for step, alone in rounds), 3),
    }


def _cpu_s(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def table(document: Document) -> str:
    """Markdown."""
    lines = [
        "| crop, px | corruption | a step, CPU ms | of it corruption, ms | share |",
        "|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        what = f"{row['side_px']} | {row['kind']}"
        lines.append(f"| {what} | {row['step_ms']:.0f} | {row['corruption_ms']:.1f} | {100 * row['share']:.0f} % |")
    return "\n".join(lines)
