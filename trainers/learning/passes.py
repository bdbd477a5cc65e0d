"""Training by gradient: one seeded pass after another, with a checkpoint after each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from trainers.dataset.resized import Resized
from trainers.learning.checkpoint import Checkpoint
from trainers.progress import Progress


class Learner(Protocol):
    """Something that learns from pictures in passes (epochs)."""

    @property
    def epochs(self) -> int:
        """Passes of the whole training; fewer once it has found that it should stop early."""

    def work(self, pictures: Resized, number: int) -> int:
        """How much work pass `number` (from 0) is, in any unit: progress and time left are shares of it."""

    def epoch(self, pictures: Resized, number: int) -> Iterator[tuple[int, float]]:
        """Do pass `number`: yields (work done, loss) after each step."""

    def state(self) -> dict[str, Any]:
        """Everything that the next pass depends on but its number: tensors and plain values."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""


def learn(
    learner: Learner, pictures: Resized, checkpoint: Checkpoint, progress: Progress, name: str = "learn"
) -> float:
    """Train; returns the mean loss of the last epoch.

    Stops and goes on at the end of an epoch: the result is the same bits as without the interruption.
    """
    done, loss = 0, math.nan
    work = [learner.work(pictures, number) for number in range(learner.epochs)]
    if (saved := checkpoint.load()) is not None:
        done, state = saved
        loss = state.pop("loss")
        learner.restore(state)
        progress.say(f"going on after epoch {done} of {len(work)} ({checkpoint.path})")
    with progress.task(name, sum(work)) as task:
        task.advance(sum(work[:done]))
        while done < learner.epochs:
            losses = []
            for step, value in learner.epoch(pictures, done):
                losses.append(value)
                task.advance(step, note=f"epoch {done + 1}/{len(work)} loss {value:.4g}")
            done, loss = done + 1, math.fsum(losses) / len(losses)
            checkpoint.save(done, learner.state() | {"loss": loss})
    return loss


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """New modules draw their weights from this seed; the global generator is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run torch with so many threads (0: as it is)."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
