"""The rows of IGD's tables, as settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

from trainers.base import AS_GIVEN, EncoderKind
from trainers.igd.settings import Objective, Settings

_PARTS = {
    "MSE": Objective(structural=False, gaussian=False, interpolation=False),
    "REC": Objective(gaussian=False, interpolation=False),
    "REC + GAC": Objective(interpolation=False),
    "REC + GAC + INTER": Objective(),
}
_FULL_SMALL_CONTAMINATED = (AS_GIVEN, "20 %", "10 % contaminated")
_SMALL = ("20 %", "60 %", AS_GIVEN)
_CONTAMINATED = ("1 % contaminated", "5 % contaminated", "10 % contaminated")


@dataclass(frozen=True, slots=True)
class Line:
    """One row: its table, its label there, how it trains and on which copies of the data."""

    table: str
    label: str
    settings: Settings
    copies: tuple[str, ...]


def tables(protocol: str, settings: Settings) -> list[Line]:
    """The rows of a protocol; those of Table 1 differ in the encoder, those of the others have the one of `settings`.

    The paper's "ImageNet" is `distilled`, in Table 5 too; `imagenet` is the backbone itself, which it has not.
    """
    if protocol == "ablation":
        return [
            Line("Table 5", label, replace(settings, objective=parts), _FULL_SMALL_CONTAMINATED)
            for label, parts in _PARTS.items()
        ]
    if protocol == "one-class":
        return [Line("Table 1", name, replace(settings, encoder=name), (AS_GIVEN,)) for name in get_args(EncoderKind)]
    if protocol == "small":
        return [Line("Table 6", "IGD", settings, _SMALL)]
    if protocol == "contaminated":
        return [Line("Table 7", "IGD", settings, _CONTAMINATED)]
    return []
