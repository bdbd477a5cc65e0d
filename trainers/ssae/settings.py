"""What can be set in SSAE, with the values of the paper where it gives them and they fit a machine without a GPU."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from engine.errors import UsageError
from trainers.base import Augmentation, Objective, TrainOptions, Width
from trainers.job import Fact, changed, plain
from trainers.ssae.corrupt import Corruption
from trainers.ssae.model import STRIDE
from trainers.width import SHARES, default_width

RATES: dict[Width, float] = {"narrow": 0.002, "full": 0.0001}  # the paper's is for its own width


@dataclass(frozen=True, slots=True)
class Settings:
    """The network, its training and its map.

    `width` None is full where there is a GPU and narrow elsewhere. `lam` are lambda of equations 1 (the paper's) and 2
    (not in the paper): below about 0.95 it pays for the network to spoil everything, because a norm over its weight's
    sum is larger for a small region. `stages` are the sides of the training crops as shares of the picture's, for
    equally many epochs each: the progressive size. Objective 2 stops when the separation of corruptions that it was
    not trained on has not grown for `patience` epochs. `augmentation` is the paper's choice by category: rotations
    where a part may lie at any angle, none where its direction tells.
    """

    side_px: int = 128
    objective: Objective = "1"
    width: Width | None = None
    smoothing: float = 1 / 64  # standard deviation of the map's smoothing, as a share of the side

    epochs: int = 60
    batch_size: int = 4
    learning_rate: float | None = None  # of Adam, at the start; None: by the width
    lam: tuple[float, float] = (0.5, 0.99)
    stages: tuple[float, ...] = (0.5, 0.75, 1.0)
    patience: int = 15
    augmentation: Augmentation = "both"
    corruption: Corruption = field(default_factory=Corruption)

    def __post_init__(self) -> None:
        if self.side_px % STRIDE:
            nearest = max(STRIDE, round(self.side_px / STRIDE) * STRIDE)
            raise UsageError(f"--image-size {self.side_px}: expected a multiple of {STRIDE} px; use {nearest}")
        if self.epochs < 1:
            raise UsageError(f"--epochs {self.epochs}: ssae is nothing without training; give 1 or more")

    @property
    def smoothing_sigma_px(self) -> float:
        """Of the map at input size."""
        return self.smoothing * self.side_px

    @property
    def cell_px(self) -> int:
        """See `trainers.job.Settings`."""
        return 1

    @property
    def channel_share(self) -> float:
        """Of Table 1's channels."""
        return SHARES[self.width or default_width()]

    @property
    def rate(self) -> float:
        """Of Adam, at the start."""
        return self.learning_rate or RATES[self.width or default_width()]

    @property
    def rotations(self) -> bool:
        """Whether pictures are turned by quarters."""
        return self.augmentation in {"rotations", "both"}

    @property
    def flips(self) -> bool:
        """Whether pictures are mirrored."""
        return self.augmentation in {"flips", "both"}

    def first_of_stage(self, stage: int) -> int:
        """The epoch, from 0 on, with which a stage begins."""
        return -(-stage * self.epochs // len(self.stages))

    def with_options(self, options: TrainOptions) -> Settings:
        """These settings with what the command line changed, and the width decided."""
        given = {
            "side_px": options.side_px,
            "epochs": options.epochs,
            "objective": options.objective,
            "augmentation": options.augmentation,
            "width": options.width or self.width or default_width(),
        }
        return changed(self, given)

    def record(self) -> dict[str, Fact]:
        """Plain values for the manifest; lists are joined by commas."""
        values = asdict(self) | {"learning_rate": self.rate}
        values |= {f"corruption_{key}": value for key, value in values.pop("corruption").items()}
        return plain(values)
