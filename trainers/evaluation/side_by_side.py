"""The sections of an ensemble's report that set members, fusion and cascade beside each other."""

from __future__ import annotations

from collections.abc import Callable

from engine.cascade import DEFECT_SHARE
from trainers.evaluation.bootstrap import Interval, share_interval
from trainers.evaluation.evaluate import Evaluation
from trainers.evaluation.jury import Cascaded, Comparison
from trainers.evaluation.report import Section, Table, Tile, Tiles, Tone
from trainers.evaluation.wording import NOTHING, filled, interval, percent, plain

_COLUMNS = ("detector", "image AUROC", "caught", "false alarms", "target", "F1", "pixel AUROC", "AUPRO", "cost")


def sections(comparison: Comparison) -> list[Section]:
    """The table, and what the cascade does where there is one."""
    found: list[Section] = [_table(comparison)]
    if comparison.cascade is not None:
        found.append(_cascade(comparison, comparison.cascade))
    return found


def others(comparison: Comparison) -> dict[str, Evaluation]:
    """What is drawn beside the fused ensemble."""
    beside = {f"{name} alone": found for name, found in comparison.members.items()}
    return beside if comparison.cascade is None else beside | {"cascade": comparison.cascade.evaluation}


def _table(comparison: Comparison) -> Table:
    rows = [_row(f"{name} alone", found, comparison.costs_ms[name]) for name, found in comparison.members.items()]
    rows.append(_row("all, fused", comparison.fused, comparison.fused_ms))
    if comparison.cascade is not None and comparison.cascade_ms is not None:
        rows.append(_row("cascade", comparison.cascade.evaluation, comparison.cascade_ms))
    columns, cells = filled(_COLUMNS, rows)
    return Table("Members, fusion and cascade", columns, cells, _intro(comparison))


def _intro(comparison: Comparison) -> str:
    first = next(iter(comparison.members))
    said = [
        "The same pictures, judged by each member alone with its own threshold, by all members fused into one score, "
        f"and by the cascade, in which {first} settles the clearly good frames and the others see only the rest."
    ]
    if comparison.cascade is None:
        said.append("Here there is no cascade: it is off, or no frame is clear enough for its bound.")
    known = {name: m.overall.image_auroc for name, m in comparison.members.items() if m.overall.image_auroc is not None}
    if known and comparison.fused.overall.image_auroc is not None:
        best = max(known, key=lambda name: known[name])
        gain = 100 * (comparison.fused.overall.image_auroc - known[best])
        than = (
            "the same AUROC as" if abs(gain) < 0.05 else f"{abs(gain):.1f} points {'more' if gain > 0 else 'less'} than"
        )
        said.append(f"Fused, they reach {than} the best member on these pictures, {best}.")
    return " ".join(said)


def notes(comparison: Comparison) -> list[tuple[str, str]]:
    """How the table is to be read."""
    found = [
        (
            "Targets",
            "Each threshold was set for a target of false alarms. What is caught compares where it is the same.",
        ),
        (
            "Costs",
            f"Of one picture, on the machine where the ensemble was made; the cascade's with one defect in "
            f"{1 / DEFECT_SHARE:.0f} frames.",
        ),
    ]
    if comparison.fused.overall.pixel_auroc is not None:
        found.append(("Pixel figures", "Of the maps that are published. A member alone publishes none."))
    if comparison.narrowed:
        found.append(("Region of interest", "It does not count for a member alone: that is judged by whole pictures."))
    return found


def _row(name: str, found: Evaluation, cost_ms: float) -> tuple[str, ...]:
    overall, sure = found.overall, found.intervals
    return (
        name,
        _cell(overall.image_auroc, sure.image_auroc, plain),
        _cell(overall.recall, sure.recall, percent),
        _cell(found.false_alarm_rate, sure.false_alarm_rate, percent),
        percent(found.target_fpr),
        _cell(overall.f1, sure.f1, plain),
        _cell(overall.pixel_auroc, sure.pixel_auroc, plain),
        _cell(overall.pixel_aupro, sure.pixel_aupro, plain),
        f"{cost_ms:.1f}\u00a0ms",
    )


def _cell(value: float | None, sure: Interval | None, write: Callable[[float], str]) -> str:
    """The figure, and its interval in a second line."""
    return NOTHING if value is None else f"{write(value)}\n{interval(sure, write)}".strip()


def _cascade(comparison: Comparison, cascade: Cascaded) -> Tiles:
    first, *rest = comparison.members
    good, defective, limit = cascade.good, cascade.defective, cascade.limit
    tiles = []
    if good.n:
        sure = share_interval(good.disagreements, good.n)
        bound = (
            f"The bound is {100 * limit.bound:g}\u00a0%, {_how(cascade)} on {limit.n} good frames held out in training."
        )
        over: Tone = "bad" if sure is not None and sure[0] > limit.bound else "good"
        tiles += [
            Tile(
                "Good pictures settled early",
                percent(good.exits / good.n),
                f"{good.exits} of {good.n} were settled by {first} alone; {' and '.join(rest)} did not have to run.",
                spread=interval(share_interval(good.exits, good.n), percent),
            ),
            Tile(
                "Good pictures judged otherwise",
                percent(good.disagreements / good.n),
                f"{good.disagreements} of {good.n} passed early though all members together would not have passed "
                f"them. {bound}",
                over,
                interval(sure, percent),
            ),
        ]
    if defective.n:
        tiles.append(
            Tile(
                "Defects lost to the cascade",
                str(defective.disagreements),
                f"Of {defective.n} defective pictures {defective.exits} were settled early as good; "
                f"{defective.disagreements or 'none'} of these would have been stopped by all members together.",
                "bad" if defective.disagreements else "good",
                interval(share_interval(defective.disagreements, defective.n), percent),
            )
        )
    if comparison.cascade_ms is not None:
        once = comparison.first_ms
        meaning = (
            f"A frame, with one defect in {1 / DEFECT_SHARE:.0f}: {comparison.cascade_ms / once:.2f} times {first} "
            f"alone ({once:.1f} ms); all members on every frame would take {comparison.fused_ms:.1f} ms."
        )
        tiles.append(Tile("Cost with the cascade", f"{comparison.cascade_ms:.1f} ms", meaning))
    return Tiles(
        "What the cascade changes",
        tiles,
        "It saves time on frames that are clearly good. Only the pictures counted here are judged otherwise for it.",
    )


def _how(cascade: Cascaded) -> str:
    return "guaranteed in the mean" if cascade.limit.how == "conformal" else "an estimate"
