"""Integrated gradients (Sundararajan et al. 2017), as in the DROC paper's Figures 6 and 12 to 15.

The attributions of all pixels add up to what the picture scores more than its baseline (completeness). The integral is
a sum over steps; there are as many of them as completeness needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from captum.attr import IntegratedGradients
from torch import Tensor

from engine.types import F32, U8
from trainers.explain.question import Question, as_batch
from trainers.progress import Progress, Task

GAP = 0.01  # of the difference of scores, or of the calibrated scale's width where that is larger
FIRST_STEPS = 32
_BATCH = 8


@dataclass(frozen=True, slots=True)
class Attribution:
    """`values` (H, W, 3), signed, in units of the raw score: positive where a pixel, as it is and not as in the
    `baseline` (H, W, 3), raises the score.

    `difference` is what the picture scores more than the baseline, `gap` what `values` miss of it.
    """

    values: F32
    baseline: U8
    steps: int
    difference: float
    gap: float
    allowed: float

    @property
    def complete(self) -> bool:
        """Whether the attributions add up."""
        return self.gap <= self.allowed


def integrated_gradients(
    question: Question, picture: U8, baseline: U8, max_steps: int, progress: Progress
) -> Attribution:
    """Attributions of a picture (H, W, 3), with twice the steps until they are complete or there are `max_steps`."""
    difference = question.answer(picture) - question.answer(baseline)
    allowed = GAP * max(abs(difference), question.width)
    steps = min(FIRST_STEPS, max_steps)
    while True:
        values = _integrate(question, picture, baseline, steps, progress)
        gap = abs(float(values.sum(dtype=np.float64)) - difference)
        if gap <= allowed or steps == max_steps:
            return Attribution(values, baseline, steps, difference, gap, allowed)
        steps = min(2 * steps, max_steps)


def _integrate(question: Question, picture: U8, baseline: U8, steps: int, progress: Progress) -> F32:
    with progress.task(f"integrated gradients, {steps} steps", steps) as task:
        method = IntegratedGradients(_counted(question, task))
        found = method.attribute(
            as_batch(picture), as_batch(baseline), n_steps=steps, method="gausslegendre", internal_batch_size=_BATCH
        )
    values: F32 = found[0].detach().numpy().astype(np.float32)
    return values


def _counted(question: Question, task: Task) -> Callable[[Tensor], Tensor]:
    """The question, which tells the task of every picture that it is asked of."""

    def forward(images: Tensor) -> Tensor:
        answers = question.differentiable(images)
        task.advance(len(images))
        return answers

    return forward
