"""New versions into a repository, and back: on disk, and in the server that runs on it.

The models of a version are loaded before anything changes; then the ensembles `detector` and METHOD are replaced, each
in one step. Triton finishes the requests that are in an old ensemble, whose models stay until they are pruned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.triton.control import Control
from engine.triton.repository import Fill, Repository, fixed_names, public_names
from engine.triton.served import Served
from engine.triton.server import Server


@dataclass(frozen=True, slots=True)
class Published:
    """What is served now: Triton's version number, the bundle's NAME@VERSION, and whether a server has loaded it."""

    version: int
    model: str
    loaded: bool


def publish(repository: Repository, version: Served, fills: Mapping[str, Fill]) -> Published:
    """Add a version and serve it; where the running server cannot load it, nothing has changed.

    The version that was served until now is kept for the way back.
    """
    control = _control(repository)
    try:
        repository.add(version, fills)
        _load(control, fixed_names(version))
    except BaseException:
        _unload(control, repository.remove(version))
        raise
    before = repository.current
    number = repository.switch_to_new(version)
    _load(control, public_names(version))
    _unload(control, repository.prune(keep=(before, number)))
    return Published(number, version.manifest.model, control is not None)


def roll_back(repository: Repository) -> Published:
    """Serve the version before the current one again, a second time the current one; UsageError where there is none."""
    repository.require()
    control = _control(repository)
    number = repository.switch_back()
    _load(control, repository.models())
    return Published(number, repository.versions()[number].manifest.model, control is not None)


def _control(repository: Repository) -> Control | None:
    running = Server(repository).running()
    return None if running is None else running.control


def _load(control: Control | None, names: Sequence[str]) -> None:
    if control is not None:
        for name in names:
            control.load(name)


def _unload(control: Control | None, names: Sequence[str]) -> None:
    """Ensembles go before what they are made of."""
    if control is not None:
        for name in reversed(names):
            control.unload(name)
