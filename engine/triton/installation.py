"""Which tritonserver this machine has: an installed one, else a container image, else the binary of a PyPI package."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import UsageError

CONTAINER_IMAGE = "anomaly-engine-triton"
WHEEL = "nvidia-pytriton==0.7.0"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_STUB = "triton_python_backend_stub"
_PREFIX = Path("/opt/tritonserver/bin/tritonserver")  # where NVIDIA's packages and images have it
_LIBPYTHON = f"libpython{_PYTHON}.so.1.0"
_ASK_S = 20


@dataclass(frozen=True, slots=True)
class Installation:
    """How a server is started: `command` before the server's own options, and what its environment needs.

    `backends` is the folder of its backends, None for the server's own. `container` is the name under which a container
    runs, with the command that removes it.
    """

    what: str
    command: Sequence[str]
    backends: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    remove: Sequence[str] = ()


def find(repository: Path, scratch: Path, name: str) -> Installation:
    """The server for a repository; `scratch` takes files of its own, `name` is a container's.

    Raises UsageError where there is none, saying how to get one.
    """
    found = _installed() or _container(repository, name) or _wheel(scratch)
    if found is None:
        raise UsageError(
            f"engine triton up: no tritonserver here (looked for `tritonserver`, {_PREFIX}, a container image "
            f"{CONTAINER_IMAGE}, and the package nvidia-pytriton); pip install --no-deps {WHEEL}, or see docs/triton.md"
        )
    return found


def _installed() -> Installation | None:
    binary = shutil.which("tritonserver") or (str(_PREFIX) if _PREFIX.is_file() else None)
    return None if binary is None else Installation(binary, (binary,), environment=_environment(()))


def _container(repository: Path, name: str) -> Installation | None:
    """A local image that holds the engine beside the server; nothing is ever pulled."""
    client = shutil.which("docker") or shutil.which("podman")
    if client is None or not _answers((client, "image", "inspect", CONTAINER_IMAGE)):
        return None
    gpus = ("--gpus", "all") if shutil.which("nvidia-smi") else ()
    place = f"{repository}:{repository}:ro"
    run = ("run", "--rm", "--name", name, "--network", "host", "--ipc", "host", *gpus, "--volume", place)
    return Installation(
        f"{client}: {CONTAINER_IMAGE}",
        (client, *run, CONTAINER_IMAGE, "tritonserver"),
        environment=dict(os.environ),
        remove=(client, "rm", "--force", name),
    )


def _answers(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=_ASK_S, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _wheel(scratch: Path) -> Installation | None:
    """The binary inside nvidia-pytriton, whose Python code is never imported."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent / "tritonserver"
    stub = root / "python_backend_stubs" / _PYTHON / _STUB
    if not stub.is_file():
        have = ", ".join(sorted(path.name for path in stub.parents[1].glob("*")))
        raise UsageError(f"{root}: no python backend for Python {_PYTHON} (it has: {have}); use one of these")
    libraries = (root.parents[1] / "nvidia_pytriton.libs", _libpython())
    backends = _lay_out(root / "backends" / "python", stub, scratch / "backends")
    binary = root / "bin" / "tritonserver"
    return Installation(f"{binary} of {WHEEL}", (str(binary),), backends, _environment(libraries))


def _lay_out(backend: Path, stub: Path, folder: Path) -> Path:
    """A folder of backends whose python backend has the stub of this Python beside it, where the server looks."""
    target = folder / "python"
    shutil.rmtree(folder, ignore_errors=True)
    target.mkdir(parents=True)
    for path in (*backend.iterdir(), stub):
        (target / path.name).symlink_to(path)
    return folder


def _libpython() -> Path:
    """The folder of this Python's shared library, which the stub loads."""
    folder = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    for place in (folder, folder / multiarch):
        if (place / _LIBPYTHON).exists():
            return place
    raise UsageError(
        f"{folder}: no {_LIBPYTHON}, which Triton's python backend loads; use a Python built with --enable-shared "
        f"(Debian: apt install libpython{_PYTHON})"
    )


def _environment(libraries: Sequence[Path]) -> dict[str, str]:
    """This process's environment, with this Python first on PATH: the stub finds its packages from there."""
    paths = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    found = [*map(str, libraries), os.environ.get("LD_LIBRARY_PATH", "")]
    return {
        **os.environ,
        "PATH": os.pathsep.join(filter(None, paths)),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, found)),
    }
