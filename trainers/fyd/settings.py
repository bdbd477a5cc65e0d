"""What can be set in FYD, with the values of the paper where it gives them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from trainers import backbones
from trainers.base import TrainOptions
from trainers.job import changed


@dataclass(frozen=True, slots=True)
class Settings:
    """What the features are, how the Gaussian is fitted and the map smoothed, and which parts are learnt.

    `epochs` 0 leaves every learnt part out: the plain Gaussian on ImageNet features. `fca` says after which of the
    three levels features are aligned. The loss weights (lambda of equation 5) are not published.
    """

    backbone: str = backbones.DEFAULT
    side_px: int = 224
    channels: int | None = None  # a seeded random subset of the features; None: all of them
    pooling: int = 3  # side of the averaging window on each level; 1: none
    grid_stride_px: int = 8  # picture pixels per grid cell: 4, 8 or 16
    regularisation: float = 0.03  # of each channel's mean variance, added to the diagonal of the covariance
    smoothing_sigma_px: float = 2.0
    int8: bool = True  # whether the bundle has an int8 executable too

    epochs: int = 0
    ica: bool = True
    fca: tuple[bool, bool, bool] = (True, True, True)
    non_contrastive: bool = True
    lambda_ica: float = 1.0
    lambda_fas: float = 1.0
    ica_gradient_norm: float = 10.0  # the ICA's gradient is shortened to this: it grows a thousandfold on the way
    lr_ica: float = 0.01
    lr_others: float = 0.0001
    momentum: float = 0.9
    weight_decay: float = 0.00001
    batch_size: int = 32
    fca_bound: float = 0.1

    def __post_init__(self) -> None:
        if any(self.fca) and not self.non_contrastive:
            raise ValueError("the FCA learns from the non-contrastive loss alone; switch both on or both off")
        if self.grid_stride_px not in backbones.STRIDES:
            raise ValueError(f"grid_stride_px: expected one of {backbones.STRIDES}, got {self.grid_stride_px}")

    @property
    def learns(self) -> bool:
        """Whether anything is trained by gradient."""
        return self.epochs > 0 and (self.ica or self.non_contrastive)

    @property
    def cell_px(self) -> int:
        """See `trainers.job.Settings`."""
        return self.grid_stride_px

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of positions."""
        side = self.side_px // self.grid_stride_px
        return side, side

    def with_options(self, options: TrainOptions) -> Settings:
        """These settings with what the command line changed."""
        given = {
            "backbone": options.backbone,
            "side_px": options.side_px,
            "channels": options.channels,
            "epochs": options.epochs,
        }
        return changed(self, given)

    def record(self) -> dict[str, str | int | float | bool | None]:
        """Plain values for the manifest; a backbone's file is left out, because paths differ between machines."""
        values: dict[str, str | int | float | bool | None] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            values[item.name] = ",".join(str(int(v)) for v in value) if isinstance(value, tuple) else value
        return values | {"backbone": self.backbone.partition("=")[0]}
