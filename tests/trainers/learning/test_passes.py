"""The loop of passes: what it shows, where it stops, and that stopping in between changes nothing."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from trainers.dataset.resized import Resized
from trainers.learning.checkpoint import Checkpoint
from trainers.learning.passes import learn, seeded, torch_threads
from trainers.progress import RecordedProgress

PICTURES = Resized(np.zeros((6, 1, 1, 3), np.uint8), np.arange(6))


class BrokenOffError(Exception):
    pass


@dataclass
class Counting:
    """Adds up powers of two; pass `number` is number + 1 pieces of work a picture."""

    epochs: int = 4
    breaks_in: int | None = None
    total: list[float] = field(default_factory=lambda: [0.0])

    def work(self, pictures, number):
        return len(pictures) * (number + 1)

    def epoch(self, pictures, number):
        for step in range(2):
            if number == self.breaks_in:
                raise BrokenOffError
            self.total[0] += 2.0**number
            yield self.work(pictures, number) // 2, number + step / 2

    def state(self):
        return {"total": torch.tensor(self.total)}

    def restore(self, state):
        self.total = state["total"].tolist()


def test_progress_and_loss_are_of_the_passes(tmp_path):
    progress = RecordedProgress()
    loss = learn(Counting(), PICTURES, Checkpoint.beside(tmp_path / "out", ""), progress, "course")
    assert loss == 3.25  # the mean of the last pass
    steps = [step for step in progress.advances if step[1]]
    assert [done for _, done, _ in steps] == [3, 6, 12, 18, 27, 36, 48, 60]
    assert steps[-1] == ("course", 60, "epoch 4/4 loss 3.5")


def test_a_training_broken_off_goes_on_after_its_last_whole_pass(tmp_path):
    checkpoint = Checkpoint.beside(tmp_path / "out", "one")
    with pytest.raises(BrokenOffError):
        learn(Counting(breaks_in=2), PICTURES, checkpoint, RecordedProgress())
    again, progress = Counting(), RecordedProgress()
    assert learn(again, PICTURES, checkpoint, progress) == 3.25
    assert again.total == [2 * (1 + 2 + 4 + 8)]
    assert progress.lines == [f"going on after epoch 2 of 4 ({checkpoint.path})"]
    assert progress.advances[0][1] == 18  # the time left is of what is left
    assert learn(Counting(), PICTURES, checkpoint, RecordedProgress()) == 3.25  # nothing left to do


@dataclass
class Stopping(Counting):
    """Has had enough after two passes."""

    @property
    def epochs(self):
        return 2 if self.total[0] > 4 else 4

    @epochs.setter
    def epochs(self, value):
        """Of the dataclass; not used."""


def test_a_learner_may_stop_early(tmp_path):
    learner = Stopping()
    checkpoint = Checkpoint.beside(tmp_path / "out", "one")
    learn(learner, PICTURES, checkpoint, RecordedProgress())
    assert learner.total == [6.0]
    resumed = Stopping()
    learn(resumed, PICTURES, checkpoint, RecordedProgress())
    assert resumed.total == [6.0]


def test_seeded_weights_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    with seeded(3):
        a = torch.nn.Linear(2, 2).weight
    with seeded(3):
        b = torch.nn.Linear(2, 2).weight
    assert torch.equal(a, b)
    assert torch.equal(before, torch.random.get_rng_state())


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with torch_threads(0):
        assert torch.get_num_threads() == before
