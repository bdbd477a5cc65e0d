"""What can be set in DROC, with the values of the paper and its code where they fit a machine without a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

import msgspec

from engine.errors import UsageError
from trainers import backbones
from trainers.base import ClassifierKind, NetworkKind, PretextKind, TrainOptions, Width
from trainers.droc.network import PADDING_FREE, PADDING_FREE_OVERLAP
from trainers.droc.views import ROTATED
from trainers.job import Fact, changed, plain
from trainers.width import SHARES, default_width

_SMALLEST_PX = 32
_LAYERS = {"rotation": 7}  # of the head, in the official code; eight of contrastive ones


@dataclass(frozen=True, slots=True)
class Settings:
    """Stage one (how f is made), stage two (how a classifier is fitted to it) and the map.

    Pictures of `side_px` are judged patch by patch; where the patch is as large as the picture there is one score and
    no map. `network` None is padding-free for maps and ResNet-18 for whole pictures; the latter takes `overlap` steps
    to a patch, for it sees them one by one. `width` None is full where there is a GPU and narrow elsewhere;
    `head_layers` and `batch_size` None are the official code's. A pass takes `patches` random patches of each picture;
    `distributions` are those of DistAug, see `droc.views`. `fitted_on` patches are the most that the Gaussian is fitted
    to, `kernels` those of the others: they keep their features, or take time that grows with their square.
    """

    side_px: int = 256
    patch_px: int = 32
    network: NetworkKind | None = None
    width: Width | None = None
    backbone: str = backbones.DEFAULT
    overlap: int = 2

    pretext: PretextKind = "distaug"
    distributions: tuple[str, ...] = ROTATED
    head_layers: int | None = None
    temperature: float = 0.2
    epochs: int = 20
    patches: int = 16
    batch_size: int | None = None
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 3e-4

    classifier: ClassifierKind = "gde"
    fitted_on: int = 20_000
    kernels: int = 4_000
    smoothing_sigma_px: float = 4.0

    def __post_init__(self) -> None:
        if self.patch_px % _SMALLEST_PX or not self.patch_px:
            raise UsageError(f"--patch-size {self.patch_px}: expected a multiple of {_SMALLEST_PX} px; use 32 or 64")
        beyond = self.side_px - self.patch_px
        if beyond < 0 or beyond % self.stride_px:
            nearest = self.patch_px + max(0, round(beyond / self.stride_px)) * self.stride_px
            raise UsageError(
                f"--image-size {self.side_px}: expected the patch's {self.patch_px} px plus a multiple of "
                f"{self.stride_px} px; use {nearest}"
            )
        if self.kind == "padding-free" and self.patch_px not in PADDING_FREE:
            sizes = " or ".join(map(str, PADDING_FREE))
            raise UsageError(f"--network padding-free: has patches of {sizes} px, not {self.patch_px}; use resnet18")
        if self.learns and self.epochs < 1:
            raise UsageError(f"--epochs {self.epochs}: stage one is nothing without training; give 1 or more")
        if self.classifier == "rotation-softmax" and self.pretext != "rotation":
            raise UsageError(
                f"--classifier rotation-softmax: scores by --pretext rotation, not {self.pretext}; give both or neither"
            )

    @property
    def kind(self) -> NetworkKind:
        """The network, decided."""
        return self.network or ("resnet18" if self.patch_px == self.side_px else "padding-free")

    @property
    def stride_px(self) -> int:
        """From patch to patch of the map; a network without padding has its own."""
        return self.patch_px // (PADDING_FREE_OVERLAP if self.kind == "padding-free" else self.overlap)

    @property
    def learns(self) -> bool:
        """Whether there is a stage one."""
        return self.pretext not in ("random", "imagenet")

    @property
    def channel_share(self) -> float:
        """Of ResNet-18's channels."""
        return SHARES[self.width or default_width()]

    @property
    def spread(self) -> tuple[str, ...]:
        """The distributions that contrastive learning tells apart."""
        return self.distributions if self.pretext == "distaug" else ("original",)

    @property
    def layers(self) -> int:
        """Of the head, before its last."""
        if self.head_layers is None:
            return _LAYERS.get(self.pretext, 8)
        return self.head_layers

    @property
    def batch(self) -> int:
        """Patches of a step, before they are turned or seen twice: the paper's."""
        return self.batch_size or (64 if self.pretext == "rotation" else 32)

    @property
    def seen(self) -> int:
        """Patches that a pass takes of each picture: one where it is the picture."""
        return 1 if self.patch_px == self.side_px else self.patches

    @property
    def most_features(self) -> int:
        """That the classifier is fitted to."""
        return self.fitted_on if self.classifier == "gde" else self.kernels

    @property
    def cell_px(self) -> int:
        """See `trainers.job.Settings`: a step from patch to patch, the whole picture where there is no map."""
        return self.side_px if self.patch_px == self.side_px else self.stride_px

    @property
    def map_sigma_px(self) -> float:
        """Of the map's smoothing: none where there is no map."""
        return 0.0 if self.patch_px == self.side_px else self.smoothing_sigma_px

    def with_options(self, options: TrainOptions) -> Settings:
        """These settings with what the command line changed, and the width decided."""
        given = {
            "side_px": options.side_px,
            "patch_px": options.patch_size,
            "network": options.network,
            "backbone": options.backbone,
            "width": options.width or self.width or default_width(),
            "pretext": options.pretext,
            "epochs": options.epochs,
            "classifier": options.classifier,
        }
        return changed(self, given)

    def with_stage_two(self, other: Settings) -> Settings:
        """The representation of these with the classifier and the map of others."""
        return replace(
            self,
            classifier=other.classifier,
            fitted_on=other.fitted_on,
            kernels=other.kernels,
            smoothing_sigma_px=other.smoothing_sigma_px,
        )

    def stage_one(self) -> Settings:
        """What the representation depends on; the rest as it is by default."""
        return self.with_stage_two(Settings())

    def record(self) -> dict[str, Fact]:
        """Plain values for the manifest; lists are joined by commas, a backbone's file is left out."""
        values = asdict(self) | {"backbone": self.backbone.partition("=")[0]}
        return plain(values)

    @classmethod
    def recorded(cls, values: Mapping[str, Fact]) -> Settings:
        """Those that `record` gave, out of a manifest."""
        found = {field.name: values[field.name] for field in fields(cls)}
        found["distributions"] = tuple(str(found["distributions"]).split(","))  # type: ignore[assignment]
        return msgspec.convert(found, cls)
