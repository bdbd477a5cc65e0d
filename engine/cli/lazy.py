"""Loads the training half of the project on demand: a serving machine has no torch."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from engine.errors import MissingExtraError


def training(module: str, command: str) -> Any:
    """Import `trainers.<module>`; raises MissingExtraError naming the extra where its libraries are missing."""
    try:
        return import_module(f"trainers.{module}")
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] in ("engine", "trainers", "kernels"):
            raise
        raise MissingExtraError(f"`engine {command}` ({error.name} is not installed)", "train") from None
