"""A place that bundles are published to: a link that `engine serve` reads, switched in one step, and back.

PLACE                    -> PLACE.versions/NAME@VERSION
PLACE.versions/previous  -> NAME@VERSION of what was there before
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from engine import bundle as bundles
from engine import folders
from engine.errors import UsageError

_PREVIOUS = "previous"


@dataclass(frozen=True, slots=True)
class Switch:
    """What stands at a place now, and what stood there before: NAME@VERSION, None for nothing."""

    model: str
    before: str | None


class Place:
    """Where a line's bundle stands."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path))
        self.versions = self.path.with_name(f"{self.path.name}.versions")

    def publish(self, source: Path) -> Switch:
        """Copy a bundle here and switch to it. Raises BundleError where it is damaged, UsageError where the place is
        neither free nor a bundle."""
        bundle = bundles.read(source)
        before = self._current()
        model = bundle.manifest.model
        if model == before:
            return Switch(model, self._previous())
        with folders.appearing(self.versions / model) as folder:
            shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
        bundles.read(self.versions / model)
        self._switch(model, before)
        return Switch(model, before)

    def roll_back(self) -> Switch:
        """Switch to what stood here before; a second time switches forth again."""
        before, previous = self._current(), self._previous()
        if previous is None:
            raise UsageError(f"{self.path}: nothing stood here before; publish a bundle with `engine publish`")
        self._switch(previous, before)
        return Switch(previous, before)

    def _current(self) -> str | None:
        """What the link leads to. A bundle that stands here itself is moved to the versions first."""
        if self.path.is_symlink():
            return Path(os.readlink(self.path)).name
        if not self.path.exists():
            return None
        model = bundles.read(self.path).manifest.model
        self.versions.mkdir(exist_ok=True)
        os.rename(self.path, self.versions / model)
        _link(f"{self.versions.name}/{model}", self.path)
        return model

    def _previous(self) -> str | None:
        link = self.versions / _PREVIOUS
        return os.readlink(link) if link.is_symlink() else None

    def _switch(self, model: str, before: str | None) -> None:
        _link(f"{self.versions.name}/{model}", self.path)
        if before is not None:
            _link(before, self.versions / _PREVIOUS)
        for folder in self.versions.iterdir():
            if folder.name not in (model, before, _PREVIOUS):
                shutil.rmtree(folder)


def _link(target: str, place: Path) -> None:
    """A symbolic link, in place of the one that is there, in one step."""
    scratch = place.with_name(f".{place.name}.new")
    scratch.unlink(missing_ok=True)
    os.symlink(target, scratch)
    os.replace(scratch, place)
