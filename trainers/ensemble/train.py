"""`engine train --method ensemble`: the members one after another on the same pictures, then fused."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine import bundle
from engine.errors import UsageError
from trainers import registry
from trainers.base import OF_SOME, TrainOptions, TrainReport
from trainers.ensemble.fuse import METHOD, FuseOptions, OpenMember, fuse
from trainers.progress import Progress

MEMBERS = ("fyd", "ssae")


def train(
    options: TrainOptions,
    members: Sequence[str],
    review_fpr: float | None,
    open_member: OpenMember,
    progress: Progress,
) -> TrainReport:
    """Train `members`, methods by name, and write the ensemble `options.out`; options go to the methods that have them.

    Raises UsageError for an unknown method, one that is named twice, or fewer than two.
    """
    started_s = time.perf_counter()
    if len(members) < 2 or len(set(members)) < len(members):
        raise UsageError(f"--members: expected at least two different methods, got {','.join(members) or 'none'}")
    trainers = [registry.get(name) for name in members]
    for name in OF_SOME - frozenset().union(*(trainer.takes for trainer in trainers)):
        if getattr(options, name) not in (None, False):
            raise UsageError(f"--{name.replace('_', '-')}: not an option of any of {', '.join(members)}")
    bundle.check_replaceable(options.out)
    parent = options.out.resolve().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{options.out.resolve().name}.members.", dir=parent) as scratch:
        made: list[Path] = []
        for trainer in trainers:
            progress.say(f"member {len(made) + 1} of {len(trainers)}: {trainer.name}")
            others = {name: _UNSET[name] for name in OF_SOME - trainer.takes}
            own = replace(options, out=Path(scratch) / trainer.name, **others)  # type: ignore[arg-type]
            made.append(trainer.train(own, progress).bundle)
        progress.say(METHOD)
        fusing = FuseOptions(
            tuple(made), options.data, options.out, options.target_fpr, review_fpr, threads=options.threads
        )
        report = fuse(fusing, open_member, progress)
    return replace(report, train_s=time.perf_counter() - started_s)


_UNSET = {name: TrainOptions.__dataclass_fields__[name].default for name in OF_SOME}
