"""Which methods there are. Every one is named here; the command line and the tests go through this table."""

from __future__ import annotations

from collections.abc import Iterator

from engine.errors import UsageError
from trainers.base import Trainer
from trainers.droc import Droc
from trainers.fyd import Fyd
from trainers.igd import Igd
from trainers.ssae import Ssae


class Registry:
    """Trainers by name."""

    def __init__(self) -> None:
        self._trainers: dict[str, Trainer] = {}

    def add(self, trainer: Trainer) -> None:
        """Raises ValueError when the name is taken."""
        if trainer.name in self._trainers:
            raise ValueError(f"a trainer named {trainer.name!r} is registered already")
        self._trainers[trainer.name] = trainer

    def get(self, name: str) -> Trainer:
        """Raises UsageError naming those there are."""
        if name not in self._trainers:
            raise UsageError(f"--method {name}: unknown; choose one of {', '.join(self)}")
        return self._trainers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._trainers)


_REGISTRY = Registry()
_REGISTRY.add(Fyd())
_REGISTRY.add(Ssae())
_REGISTRY.add(Igd())
_REGISTRY.add(Droc())

get = _REGISTRY.get


def names() -> tuple[str, ...]:
    """All methods, in the order they were registered."""
    return tuple(_REGISTRY)
