"""Read, verify and write a model bundle: a folder of `bundle.json`, ONNX networks and safetensors.

Loading checks every file's hash, refuses newer schemas and paths that leave the folder, and unpickles nothing.
Writing is atomic: a bundle appears whole or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec

from engine import folders
from engine.contract import MANIFEST_NAME, SCHEMA_VERSION, Executable, File, Manifest, Precision
from engine.errors import BundleError

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle: its folder and its manifest."""

    path: Path
    manifest: Manifest

    def executable(self, precision: Precision) -> Executable:
        """The executable of a precision; raises BundleError naming those there are."""
        try:
            return self.manifest.executables[precision]
        except KeyError:
            have = ", ".join(sorted(self.manifest.executables))
            raise BundleError(
                f"{self.path}: no {precision} executable was calibrated in this bundle (it has: {have}); "
                f"set runtime.precision to one of them, or train again"
            ) from None

    def file(self, file: File) -> Path:
        """The path of one of its files on disk."""
        return self.path / file.path


def read(path: str | Path) -> Bundle:
    """Load and verify the bundle in a folder.

    Raises BundleError when the folder or a file is missing, a hash is wrong, the schema is newer, or a path leaves
    the folder.
    """
    folder = Path(path)
    manifest = _read_manifest(folder)
    for file in _files(manifest):
        _verify(folder, file)
    return Bundle(folder, manifest)


def describe(path: Path, folder: Path) -> File:
    """The manifest entry of a file below `folder`."""
    return File(path=path.relative_to(folder).as_posix(), sha256=sha256(path), bytes=path.stat().st_size)


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """A scratch folder that becomes the bundle `path` when the block ends without an error.

    Raises BundleError when `path` exists and is not a bundle, so that no other folder is ever replaced.
    """
    target = Path(path).resolve()
    if not folders.replaceable(target, MANIFEST_NAME):
        raise BundleError(f"{target}: exists and is not a bundle; choose another --out, or remove it first")
    with folders.appearing(target) as scratch:
        yield scratch


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
        return msgspec.convert(head, Manifest)
    except msgspec.ValidationError as error:
        raise BundleError(
            f"{path}: {error}; the bundle was edited or made by another version: train it again"
        ) from None


def _files(manifest: Manifest) -> Iterator[File]:
    if manifest.weights is not None:
        yield manifest.weights
    for executable in manifest.executables.values():
        yield executable.network
        yield from executable.data
        if executable.gaussian is not None:
            yield executable.gaussian


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
