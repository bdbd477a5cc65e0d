"""What can be set in IGD, with the values of the paper where it gives them and they fit a machine without a GPU."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from engine.errors import UsageError
from trainers import backbones
from trainers.base import EncoderKind, TrainOptions, Width
from trainers.igd.patches import PATCH_PX
from trainers.job import Fact, changed, plain
from trainers.width import SHARES, default_width

_LOCAL = 1 / 6  # passes of the local model for one of the global one: a picture has more than 200 patches
_LOCAL_PRETRAINING = 1 / 20
_E_STEPS = 6  # of a training that is shorter than the paper's
_E_STEP_EVERY = 10  # epochs, the paper's


@dataclass(frozen=True, slots=True)
class Objective:
    """The parts of the loss (7) and its weights; without a part its term is neither trained on nor scored.

    `structural` is equation (12), else the squared error takes its place; `gaussian` is (8), `interpolation` (9), (10)
    and the second term of (11). `rho` is of (12), `lambda_3` of (11); lambda_1 and lambda_2 are 1 and not written.
    """

    structural: bool = True
    gaussian: bool = True
    interpolation: bool = True
    rho: float = 0.15
    lambda_3: float = 0.1


@dataclass(frozen=True, slots=True)
class Settings:
    """The networks, their training and their map.

    `encoder` says where f comes from, see `igd.encoder`; `width` is the share of ResNet-18's channels, None is full
    where there is a GPU and narrow elsewhere. `epochs`, `e_step_every` and `pretraining_epochs` are the global model's:
    the E-step comes before every `e_step_every`-th epoch, from the first on; None is six times, and in more than 60
    epochs every ten. An encoder that is taught before makes `pretraining_epochs`, None is as many as follow. The local
    model learns from at most `patches` patches, drawn once.
    """

    side_px: int = 256
    encoder: EncoderKind = "imagenet"
    backbone: str = backbones.DEFAULT
    width: Width | None = None
    objective: Objective = Objective()
    smoothing_sigma_px: float = 4.0

    epochs: int = 20
    batch: int = 16
    local_batch: int = 64
    patches: int = 60_000
    e_step_every: int | None = None
    learning_rate: float = 0.001
    betas: tuple[float, float] = (0.0, 0.9)
    weight_decay: float = 1e-6
    decay_power: float = 0.9

    pretraining_epochs: int | None = None

    def __post_init__(self) -> None:
        if self.side_px != PATCH_PX and (self.side_px % 64 or self.side_px < 64):
            nearest = max(64, round(self.side_px / 64) * 64)
            raise UsageError(f"--image-size {self.side_px}: expected 32 or a multiple of 64 px; use {nearest}")
        if self.epochs < 1:
            raise UsageError(f"--epochs {self.epochs}: igd is nothing without training; give 1 or more")

    @property
    def local(self) -> bool:
        """Whether there is a local model: a picture of one patch has none."""
        return self.side_px > PATCH_PX

    @property
    def cell_px(self) -> int:
        """See `trainers.job.Settings`."""
        return 1

    @property
    def channel_share(self) -> float:
        """Of ResNet-18's channels."""
        return SHARES[self.width or default_width()]

    def passes(self, epochs: int) -> int:
        """Of the local model, where the global one makes so many."""
        return max(1, round(epochs * _LOCAL))

    @property
    def e_step_period(self) -> int:
        """Epochs of the global model from one E-step to the next."""
        return self.e_step_every or min(_E_STEP_EVERY, max(1, round(self.epochs / _E_STEPS)))

    @property
    def encoder_epochs(self) -> int:
        """Of the global model's encoder, where it is taught before."""
        return self.pretraining_epochs or self.epochs

    @property
    def local_encoder_epochs(self) -> int:
        """Of the local model's encoder."""
        return max(1, round(self.encoder_epochs * _LOCAL_PRETRAINING))

    def with_options(self, options: TrainOptions) -> Settings:
        """These settings with what the command line changed, and the width decided."""
        given = {
            "side_px": options.side_px,
            "epochs": options.epochs,
            "encoder": options.encoder,
            "backbone": options.backbone,
            "width": options.width or self.width or default_width(),
        }
        return changed(self, given)

    def record(self) -> dict[str, Fact]:
        """Plain values for the manifest; lists are joined by commas, a backbone's file is left out."""
        values = asdict(self) | {"backbone": self.backbone.partition("=")[0]}
        values |= {"e_step_every": self.e_step_period, "pretraining_epochs": self.encoder_epochs}
        values |= values.pop("objective")
        return plain(values)
