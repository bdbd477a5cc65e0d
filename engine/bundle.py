"""Read, verify and write a model bundle: a folder of `bundle.json`, ONNX networks and safetensors.

An ensemble's bundle holds its members' bundles in folders of its own.
Loading checks every file's hash, refuses newer schemas and paths that leave the folder, and unpickles nothing.
Writing is atomic: a bundle appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import msgspec

from engine import folders
from engine.contract import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Calibration,
    Ensemble,
    Executable,
    File,
    Manifest,
    Precision,
)
from engine.errors import BundleError

if TYPE_CHECKING:
    from engine.sheet import Sheet

_CHUNK_BYTES = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle: its folder and its manifest, and of an ensemble its members' by their names."""

    path: Path
    manifest: Manifest
    members: Mapping[str, Bundle] = field(default_factory=dict)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that it was calibrated in."""
        return tuple(self.manifest.ensembles or self.manifest.executables)

    @property
    def tiled(self) -> bool:
        """Whether it, or any member of an ensemble, looks at pictures in tiles (`engine.tiling`)."""
        return self.manifest.tiling is not None or any(member.tiled for member in self.members.values())

    @property
    def sheet(self) -> Sheet:
        """The sizes at which it looks at a picture."""
        from engine.sheet import Sheet  # brings OpenCV, which machines that only read bundles need not have

        if self.members:
            return Sheet(tuple(dict.fromkeys(size for each in self.members.values() for size in each.sheet.sizes)))
        return Sheet(((self.manifest.input.height, self.manifest.input.width),))

    def executable(self, precision: Precision) -> Executable:
        """The executable of a precision of one model; raises BundleError naming those there are."""
        if self.members:
            raise BundleError(
                f"{self.path}: is an ensemble, and one model is wanted here; "
                f"name one of its members: {', '.join(f'{self.path}/members/{name}' for name in self.members)}"
            )
        return self._of(precision, self.manifest.executables)

    def ensemble(self, precision: Precision) -> Ensemble:
        """The ensemble of a precision; raises BundleError naming those there are."""
        return self._of(precision, self.manifest.ensembles)

    def calibration(self, precision: Precision) -> Calibration:
        """Thresholds and scales of a precision, of one model or of an ensemble as a whole; raises BundleError."""
        return (self.ensemble if self.members else self.executable)(precision).calibration

    def calibrations(self, precision: Precision) -> dict[str, Calibration]:
        """Of each member of an ensemble by name; none where it is one model."""
        return {name: member.calibration(precision) for name, member in self.members.items()}

    def file(self, file: File) -> Path:
        """The path of one of its files on disk."""
        return self.path / file.path

    def _of(self, precision: Precision, found: Mapping[Precision, T]) -> T:
        try:
            return found[precision]
        except KeyError:
            raise BundleError(
                f"{self.path}: no {precision} executable was calibrated in this bundle "
                f"(it has: {', '.join(sorted(self.precisions))}); set runtime.precision to one of them, or train again"
            ) from None


def read(path: str | Path) -> Bundle:
    """Load and verify the bundle in a folder.

    Raises BundleError when the folder or a file is missing, a hash is wrong, the schema is newer, or a path leaves
    the folder.
    """
    folder = Path(path)
    manifest = _read_manifest(folder)
    for file in _files(manifest):
        _verify(folder, file)
    return Bundle(folder, manifest, _members(folder, manifest))


def describe(path: Path, folder: Path) -> File:
    """The manifest entry of a file below `folder`."""
    return File(path=path.relative_to(folder).as_posix(), sha256=sha256(path), bytes=path.stat().st_size)


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """A scratch folder that becomes the bundle `path` when the block ends without an error.

    Raises BundleError as `check_replaceable`.
    """
    with folders.appearing(check_replaceable(path)) as scratch:
        yield scratch


def check_replaceable(path: str | Path) -> Path:
    """The absolute path; raises BundleError where it cannot be made, or something is there that is no bundle.

    No other folder is replaced, and hours of training are not lost to a folder that nothing can be written to.
    """
    target = Path(path).resolve()
    ground = next(parent for parent in target.parents if parent.exists())
    if not (ground.is_dir() and os.access(ground, os.W_OK | os.X_OK)):
        raise BundleError(f"{target}: {ground} is no folder that can be written to; choose another --out")
    if not folders.replaceable(target, MANIFEST_NAME):
        raise BundleError(f"{target}: exists and is not a bundle; choose another --out, or remove it first")
    return target


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `bundle.json` into a folder whose other files are complete."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (folder / MANIFEST_NAME).write_bytes(text + b"\n")


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST_NAME
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(
            f"{folder}: no bundle here (expected the file {path}); make one with `engine train`"
        ) from None
    try:
        head = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise BundleError(f"{path}: not valid JSON ({error}); copy the bundle again") from error
    version = cast(object, head.get("schema_version")) if isinstance(head, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{path}: schema_version is {version!r}, this engine reads {SCHEMA_VERSION}; "
            f"upgrade anomaly-engine, or train the bundle again with this one"
        )
    try:
        manifest = msgspec.convert(head, Manifest)
    except msgspec.ValidationError as error:
        raise BundleError(
            f"{path}: {error}; the bundle was edited or made by another version: train it again"
        ) from None
    if bool(manifest.executables) == bool(manifest.ensembles):
        raise BundleError(f"{path}: expected either executables or ensembles; the bundle was edited: train it again")
    return manifest


def _files(manifest: Manifest) -> Iterator[File]:
    if manifest.weights is not None:
        yield manifest.weights
    for executable in manifest.executables.values():
        yield executable.network
        yield from executable.data
        optional = (executable.gaussian, executable.held_out, executable.reference)
        yield from (file for file in optional if file is not None)
    for ensemble in manifest.ensembles.values():
        yield ensemble.frames
        yield from (member.manifest for member in ensemble.members)
        yield from (member.network for member in ensemble.members if member.network is not None)


def _members(folder: Path, manifest: Manifest) -> dict[str, Bundle]:
    """The verified bundles of an ensemble's members."""
    files = {member.name: member.manifest for each in manifest.ensembles.values() for member in each.members}
    for name, file in files.items():
        if _read_manifest((folder / file.path).parent).ensembles:
            raise BundleError(f"{folder}: member {name} is an ensemble itself; fuse single models only")
    return {name: read((folder / file.path).parent) for name, file in files.items()}


def _verify(folder: Path, file: File) -> None:
    path = folder / file.path
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{folder}: bundle.json names {file.path!r}, which is outside the bundle; refused")
    if not path.is_file():
        raise BundleError(f"{path}: file is missing from the bundle; copy the bundle again")
    got = sha256(path)
    if got != file.sha256:
        raise BundleError(
            f"{path}: SHA-256 is {got[:12]}..., bundle.json says {file.sha256[:12]}...; "
            f"the file is damaged or was changed: copy the bundle again"
        )
