"""Training that was interrupted goes on where it stopped: its state in one file beside the output."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file that holds the state after an epoch of one particular training.

    `fingerprint` says which: a file of another one is ignored and then overwritten.
    """

    path: Path
    fingerprint: str

    @classmethod
    def beside(cls, out: Path, fingerprint: str) -> Checkpoint:
        """The checkpoint of a training that will write `out`."""
        return cls(out.parent / f".{out.name}.checkpoint", fingerprint)

    def load(self) -> tuple[int, dict[str, Any]] | None:
        """Epochs done and the state after them; None where there is nothing to go on from. Unpickles tensors only."""
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
        except (FileNotFoundError, pickle.UnpicklingError, RuntimeError, EOFError):
            return None
        if not isinstance(saved, dict) or saved.get("fingerprint") != self.fingerprint:
            return None
        return saved["epochs"], saved["state"]

    def save(self, epochs: int, state: Mapping[str, object]) -> None:
        """Replace the file as a whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_name(self.path.name + ".new")
        torch.save({"fingerprint": self.fingerprint, "epochs": epochs, "state": dict(state)}, scratch)
        os.replace(scratch, self.path)

    def remove(self) -> None:
        """The training is over."""
        self.path.unlink(missing_ok=True)
