"""A Triton model repository on disk: versions appear whole, beside older ones, and one file says which is served.

detector/config.pbtxt   names the version that is served; replacing this file is the switch
detector/N/             served.json: which bundle version N is
METHOD/...              likewise, for the member
METHOD-TAG/...          what version N is made of; never changed, removed when no kept version needs it
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from engine import folders
from engine.contract import DETECTOR_MODEL
from engine.errors import UsageError
from engine.triton import models, served
from engine.triton.pbtxt import ModelConfig
from engine.triton.served import Served

CONFIG_NAME = "config.pbtxt"
_SERVED = re.compile(r"^version_policy \{ specific \{ versions: \[ (\d+) \] \} \}$", re.MULTILINE)

Fill = Callable[[Path], None]


class Repository:
    """The repository in a folder, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    def require(self) -> None:
        """Raise UsageError where the folder is not a repository of this engine."""
        if not self._has(DETECTOR_MODEL):
            raise UsageError(
                f"{self.path}: no Triton repository of this engine (expected {DETECTOR_MODEL}/{CONFIG_NAME}); "
                f"make one with `engine export BUNDLE --target triton --out {self.path}`"
            )

    @property
    def current(self) -> int:
        """The version that is served; 0 where there is none yet."""
        config = self.path / DETECTOR_MODEL / CONFIG_NAME
        found = _SERVED.search(config.read_text()) if config.is_file() else None
        return int(found[1]) if found else 0

    def versions(self) -> dict[int, Served]:
        """The versions that lie here, oldest first."""
        folder = self.path / DETECTOR_MODEL
        numbers = sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())
        return {number: served.read(folder / str(number)) for number in numbers}

    def models(self) -> tuple[str, ...]:
        """Every model that the served version consists of, in the order in which they can be loaded."""
        names = _names(self.versions()[self.current])
        missing = [name for name in names if not self._has(name)]
        if missing:
            raise UsageError(
                f"{self.path}: no {', '.join(missing)}, which version {self.current} consists of: files are gone, or "
                f"another version of this engine exported it; export the bundle again"
            )
        return names

    def all_models(self) -> tuple[str, ...]:
        """Those, and before them what the other kept version is made of: an engine may still ask for it."""
        fixed = [name for version in self.versions().values() for name in fixed_names(version) if self._has(name)]
        return tuple(dict.fromkeys((*fixed, *self.models())))

    def add(self, version: Served, fills: Mapping[str, Fill]) -> None:
        """Lay the models of a bundle beside those there are; nothing that is served changes.

        `fills` put the files of each model that has some into its folder, `served.json` among them.
        """
        if self.path.exists() and any(self.path.iterdir()):
            self.require()
        for config in models.fixed_models(version):
            self._add_model(config, version, fills.get(config.name))

    def remove(self, version: Served) -> tuple[str, ...]:
        """Take away what `add` laid down where no version uses it; returns the models that are gone."""
        used = {name for other in self.versions().values() for name in fixed_names(other)}
        gone = tuple(name for name in fixed_names(version) if name not in used)
        for name in gone:
            shutil.rmtree(self.path / name, ignore_errors=True)
        return gone

    def switch_to_new(self, version: Served) -> int:
        """Serve a bundle whose models lie here, as a new version; returns its number."""
        number = max(self.versions(), default=0) + 1
        for config in models.public_models(version, number):
            self._add_version(config, version)
        self._switch(version, number)
        return number

    def switch_back(self) -> int:
        """Serve the other version that is kept; returns its number. Raises UsageError where there is none."""
        other = [number for number in self.versions() if number != self.current]
        if not other:
            raise UsageError(
                f"{self.path}: nothing was served before version {self.current}; export the bundle you want"
            )
        self._switch(self.versions()[other[-1]], other[-1])
        return other[-1]

    def prune(self, keep: Collection[int]) -> tuple[str, ...]:
        """Forget all versions but some; returns the models that are gone."""
        versions = self.versions()
        old = [number for number in versions if number not in keep]
        kept = {name for number in versions if number not in old for name in _names(versions[number])}
        gone = [name for number in old for name in _names(versions[number]) if name not in kept]
        for number in old:
            for name in public_names(versions[number]):
                shutil.rmtree(self.path / name / str(number), ignore_errors=True)
        for name in gone:
            shutil.rmtree(self.path / name, ignore_errors=True)
        return tuple(gone)

    def _has(self, model: str) -> bool:
        return (self.path / model / CONFIG_NAME).is_file()

    def _add_model(self, config: ModelConfig, version: Served, fill: Fill | None) -> None:
        target = self.path / config.name
        if target.exists():
            return  # it carries its content's digest in its name
        with folders.appearing(target) as folder:
            content = folder / str(config.version)
            content.mkdir()
            (fill or version.write)(content)
            (folder / CONFIG_NAME).write_text(config.text())

    def _add_version(self, config: ModelConfig, version: Served) -> None:
        with folders.appearing(self.path / config.name / str(config.version)) as folder:
            version.write(folder)

    def _switch(self, version: Served, number: int) -> None:
        """Replace the configurations; `detector` last, because it says what is served."""
        for config in models.public_models(version, number):
            scratch = self.path / config.name / f".{CONFIG_NAME}"
            scratch.write_text(config.text())
            os.replace(scratch, self.path / config.name / CONFIG_NAME)


def fixed_names(version: Served) -> tuple[str, ...]:
    """The models that a version is made of, in the order in which they can be loaded."""
    return tuple(config.name for config in models.fixed_models(version))


def public_names(version: Served) -> tuple[str, ...]:
    """The models that clients ask for; `detector` is the last."""
    return tuple(config.name for config in models.public_models(version, 1))


def _names(version: Served) -> tuple[str, ...]:
    return (*fixed_names(version), *public_names(version))
