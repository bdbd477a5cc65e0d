"""Which bundles can be members of one ensemble, and what they are called in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from engine.bundle import Bundle
from engine.contract import Precision
from engine.errors import BundleError, DataError, UsageError
from trainers.dataset.good import TrainingSet


def names(members: Sequence[Bundle]) -> list[str]:
    """Of the members: the method, or where several are of one method the bundle's name."""
    methods = Counter(member.manifest.method for member in members)
    manifests = [member.manifest for member in members]
    return [m.method if methods[m.method] == 1 else m.name for m in manifests]


def check(members: Sequence[Bundle], weights: tuple[float, ...] | None) -> None:
    """Raises UsageError where the bundles cannot be members of one ensemble, or the weights are not theirs."""
    if len(members) < 2:
        raise UsageError(f"engine fuse: expected at least two bundles, got {len(members)}")
    for member in members:
        if member.members:
            raise UsageError(f"{member.path}: is an ensemble itself; name its members, in {member.path}/members")
    twice = [name for name, count in Counter(names(members)).items() if count > 1]
    if twice:
        raise UsageError(
            f"engine fuse: two members would be named {twice[0]!r}; train one of them again under another --out, "
            f"because members of one method go by their bundles' names"
        )
    if weights is not None and (len(weights) != len(members) or min(weights) <= 0):
        raise UsageError(f"engine fuse: expected {len(members)} positive weights, got {weights}")


def check_pictures(members: Sequence[Bundle], folder: Path, data: TrainingSet) -> None:
    """Raises DataError where a member was trained on other pictures than the folder's."""
    for member in members:
        trained_on = member.manifest.training
        if trained_on.sha256 != data.record.sha256:
            raise DataError(
                f"{member.path}: was trained on other pictures ({trained_on.n_good} good ones at {trained_on.path}) "
                f"than {folder} holds ({data.record.n_good}); give the folder that all members were trained on, "
                f"or train this one on it"
            )


def precisions(members: Sequence[Bundle]) -> list[Precision]:
    """Those that every member was calibrated in with a record of held-out scores; raises BundleError without any."""
    for member in members:
        if not any(executable.held_out for executable in member.manifest.executables.values()):
            raise BundleError(
                f"{member.path}: keeps no held-out scores, it was trained by an older version; train it again"
            )
    kept = [{p for p, e in member.manifest.executables.items() if e.held_out} for member in members]
    common = set.intersection(*kept)
    if not common:
        have = "; ".join(f"{member.path}: {' '.join(sorted(each))}" for member, each in zip(members, kept, strict=True))
        raise BundleError(f"engine fuse: the bundles have no precision in common ({have}); train one of them again")
    return [precision for precision in members[0].precisions if precision in common]
