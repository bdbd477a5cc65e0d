"""An evaluation as a report: what a quality manager wants to know first, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.types import F64
from trainers.calibration.thresholds import Split, card, resplit_check
from trainers.evaluation.charts import Chart, roc, score_histogram
from trainers.evaluation.evaluate import Evaluation, Judge, Judged, Quality, look
from trainers.evaluation.pictures import caption, panels
from trainers.evaluation.report import Card, Charts, Facts, Gallery, Section, Table, Tile, Tiles, Tone, write_report

_SHOWN = 6


def write_evaluation(path: str | Path, title: str, subtitle: str, evaluation: Evaluation, judge: Judge) -> Path:
    """Write the report of an evaluation; the pictures it shows are judged once more."""
    return write_report(path, title, subtitle, sections(evaluation, judge))


def sections(evaluation: Evaluation, judge: Judge) -> list[Section]:
    """The report's sections, in reading order; those without content are left out."""
    found: list[Section] = [_headline(evaluation, judge), _charts(evaluation)]
    if evaluation.per_defect:
        found.append(_per_defect(evaluation))
    found += [gallery for gallery in _galleries(evaluation, judge) if gallery.cards]
    found.append(
        Facts("Calibration card", card(judge.calibration), "How the thresholds were set, from good pictures only.")
    )
    return found


def _headline(evaluation: Evaluation, judge: Judge) -> Tiles:
    tiles = []
    if evaluation.n_good:
        tiles.append(_false_alarms(evaluation, judge))
    overall = evaluation.overall
    if overall.recall is not None:
        caught = sum(p.rejected for p in evaluation.defective)
        meaning = f"{caught} of {overall.n} defective pictures rejected at the threshold."
        tiles.append(Tile("Defects caught", _percent(overall.recall), meaning))
    if overall.image_auroc is not None:
        meaning = "The chance that a defective picture scores higher than a good one. 1 is perfect, 0.5 is guessing."
        tiles.append(Tile("Image AUROC", f"{overall.image_auroc:.3f}", meaning))
    if overall.f1 is not None:
        meaning = "Balance of defects caught and rejections that were right, at the threshold. 1 is perfect."
        tiles.append(Tile("F1", f"{overall.f1:.3f}", meaning))
    if overall.pixel_auroc is not None:
        meaning = "The chance that a defective pixel scores higher than a sound one, over all test pictures."
        tiles.append(Tile("Pixel AUROC", f"{overall.pixel_auroc:.3f}", meaning))
    if overall.pixel_aupro is not None:
        meaning = "How much of each defect is marked, small ones counting like large ones, at up to 30 % false pixels."
        tiles.append(Tile("AUPRO", f"{overall.pixel_aupro:.3f}", meaning))
    return Tiles("At a glance", tiles)


def _false_alarms(evaluation: Evaluation, judge: Judge) -> Tile:
    """The false-alarm rate, and whether it fits the target given both numbers of pictures."""
    estimate = judge.calibration.image_estimate
    alarms = sum(p.rejected for p in evaluation.good)
    check = resplit_check([Split(estimate.n_images, evaluation.n_good, alarms)], estimate.target_fpr)
    low, high = (_percent(rate) for rate in check.interval)
    fits = "fits" if check.passed else "does not fit"
    meaning = (
        f"{alarms} of {evaluation.n_good} good pictures rejected. That {fits} the target of "
        f"{_percent(estimate.target_fpr)}: {low} to {high} is to be expected with so many pictures."
    )
    tone: Tone = "good" if check.passed else "bad"
    return Tile("False alarms", _percent(check.rate), meaning, tone)


def _charts(evaluation: Evaluation) -> Charts:
    good, defective = _scores(evaluation.good), _scores(evaluation.defective)
    histogram = "How far apart they lie. Everything right of the line is rejected; the usual good picture is at 0.1."
    charts: list[tuple[Chart, str]] = [(score_histogram(good, defective), histogram)]
    if len(good) and len(defective):
        words = (
            "What other thresholds would do: further up catches more defects, further right costs more false alarms."
        )
        charts.append((roc(good, defective), words))
    return Charts("Good and defective pictures", charts)


def _per_defect(evaluation: Evaluation) -> Table:
    rows = [_row(name.replace("_", " "), quality) for name, quality in evaluation.per_defect.items()]
    rows.append(_row("all", evaluation.overall))
    columns = ("defect", "pictures", "caught", "image AUROC", "pixel AUROC", "AUPRO", "F1")
    return Table("By type of defect", columns, rows, "Each type against all good pictures.")


def _row(name: str, quality: Quality) -> tuple[str, ...]:
    numbers = (quality.image_auroc, quality.pixel_auroc, quality.pixel_aupro, quality.f1)
    caught = "–" if quality.recall is None else _percent(quality.recall)
    return name, str(quality.n), caught, *("–" if number is None else f"{number:.3f}" for number in numbers)


def _galleries(evaluation: Evaluation, judge: Judge) -> list[Gallery]:
    good = sorted(evaluation.good, key=lambda p: -p.pred_score)
    defective = sorted(evaluation.defective, key=lambda p: p.pred_score)
    alarms = [p for p in good if p.rejected]
    misses = [p for p in defective if not p.rejected]
    catches = _best_of_each([p for p in reversed(defective) if p.rejected])
    first = (
        ("Worst false alarms", f"Good pictures rejected: {len(alarms)}. Highest score first.", alarms)
        if alarms
        else ("Closest calls among good pictures", "No good picture is rejected. Highest score first.", good)
    )
    described = (
        first,
        ("Misses", f"Defective pictures passed: {len(misses)}. Lowest score first.", misses),
        ("Best catches", "The defects that stand out most, each type in turn.", catches),
    )
    return [
        Gallery(title, _cards(judge, chosen[:_SHOWN]), intro, legend=i == 0)
        for i, (title, intro, chosen) in enumerate(described)
    ]


def _best_of_each(ranked: Sequence[Judged]) -> list[Judged]:
    """The best of every type first, then the second best of every type, and so on."""
    seen: dict[str | None, int] = {}
    order = []
    for place, picture in enumerate(ranked):
        turn = seen[picture.defect] = seen.get(picture.defect, 0) + 1
        order.append((turn, place))
    return [ranked[place] for _, place in sorted(order)]


def _cards(judge: Judge, chosen: Sequence[Judged]) -> list[Card]:
    cards = []
    for sight in look(judge, [p.item for p in chosen]):
        name, verdict = caption(sight.judged)
        views = [(v, image) for v, image in panels(sight).items() if v != "ground truth" or sight.mask is not None]
        cards.append(Card(name, verdict, views, "good" if sight.judged.right else "bad"))
    return cards


def _scores(pictures: Sequence[Judged]) -> F64:
    return np.array([p.pred_score for p in pictures])


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%"
