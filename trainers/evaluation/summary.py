"""An evaluation as a report: what a quality manager wants to know first, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainers.calibration.thresholds import Split, card, resplit_check
from trainers.evaluation import side_by_side
from trainers.evaluation.bootstrap import RESAMPLES, SEED
from trainers.evaluation.charts import Chart, pro, roc, score_histogram
from trainers.evaluation.evaluate import Evaluation, Judge, Judged, Quality, look
from trainers.evaluation.jury import Comparison
from trainers.evaluation.pictures import caption, panels
from trainers.evaluation.report import Card, Charts, Facts, Gallery, Section, Table, Tile, Tiles, Tone, write_report
from trainers.evaluation.wording import NOTHING, filled, interval, percent, plain, scores_of

_SHOWN = 6
_INTERVALS = (
    (
        "What intervals say",
        "A repeat of this test with as many other pictures of the same kind should give figures in these ranges, about "
        "19 times in 20. Two detectors whose ranges overlap widely may well be equally good.",
    ),
    ("Shares of pictures", "False alarms and defects caught: the exact binomial interval (Clopper and Pearson)."),
    (
        "AUROC, AUPRO, F1",
        f"Bootstrap: the pictures were drawn again {RESAMPLES} times with replacement (seed {SEED}), good ones among "
        f"good and defective ones among defective, whole pictures also for pixel figures; the middle 95 % of what came "
        f"out. Where good and defective pictures are told apart without an error, this cannot show that others might "
        f"not be.",
    ),
    (
        "What intervals leave out",
        "Other parts, cameras or light than in these pictures, and what another training run would have given.",
    ),
)


def write_evaluation(
    path: str | Path,
    title: str,
    subtitle: str,
    evaluation: Evaluation,
    judge: Judge,
    comparison: Comparison | None = None,
) -> Path:
    """Write the report of an evaluation, with the `comparison` of an ensemble's; what it shows is judged once more."""
    return write_report(path, title, subtitle, sections(evaluation, judge, comparison))


def sections(evaluation: Evaluation, judge: Judge, comparison: Comparison | None = None) -> list[Section]:
    """The report's sections, in reading order; those without content are left out."""
    found: list[Section] = [_headline(evaluation, judge)]
    if comparison is not None:
        found += side_by_side.sections(comparison)
    found.append(_charts(evaluation, judge, comparison))
    if evaluation.per_defect:
        found.append(_per_defect(evaluation))
    found += [gallery for gallery in _galleries(evaluation, judge) if gallery.cards]
    notes = () if comparison is None else side_by_side.notes(comparison)
    found.append(Facts("How to read these figures", [*_INTERVALS, *notes], "Small ranges are 95 % intervals."))
    found.append(
        Facts("Calibration card", card(judge.calibration), "How the thresholds were set, from good pictures only.")
    )
    return found


def _headline(evaluation: Evaluation, judge: Judge) -> Tiles:
    overall, intervals = evaluation.overall, evaluation.intervals
    tiles = []
    if evaluation.n_good:
        tiles.append(_false_alarms(evaluation, judge))
    if overall.recall is not None:
        caught = sum(p.rejected for p in evaluation.defective)
        meaning = f"{caught} of {overall.n} defective pictures rejected at the threshold."
        tiles.append(
            Tile("Defects caught", percent(overall.recall), meaning, spread=interval(intervals.recall, percent))
        )
    if judge.calibration.review is not None:
        tiles.append(_review(evaluation, judge.calibration.review))
    rest = (
        (
            "Image AUROC",
            overall.image_auroc,
            intervals.image_auroc,
            "The chance that a defective picture scores higher than a good one. 1 is perfect, 0.5 is guessing.",
        ),
        (
            "F1",
            overall.f1,
            intervals.f1,
            "Balance of defects caught and rejections that were right, at the threshold. 1 is perfect.",
        ),
        (
            "Pixel AUROC",
            overall.pixel_auroc,
            intervals.pixel_auroc,
            "The chance that a defective pixel scores higher than a sound one, over all test pictures.",
        ),
        (
            "AUPRO",
            overall.pixel_aupro,
            intervals.pixel_aupro,
            "How much of each defect is marked, small ones counting like large ones, at up to 30 % false pixels.",
        ),
    )
    for label, value, spread, meaning in rest:
        if value is not None:
            tiles.append(Tile(label, plain(value), meaning, spread=interval(spread, plain)))
    return Tiles("At a glance", tiles, _in_short(evaluation, judge))


def _in_short(evaluation: Evaluation, judge: Judge) -> str:
    """What becomes of the pictures, in plain words."""
    review = judge.calibration.review
    said = [
        f"Of {len(pictures)} {kind} pictures: {_become(pictures, review)}."
        for kind, pictures in (("defective", evaluation.defective), ("good", evaluation.good))
        if pictures
    ]
    target = percent(judge.calibration.image_estimate.target_fpr)
    said.append(f"The threshold was set so that {target} of good pictures are rejected.")
    return " ".join(said)


def _become(pictures: Sequence[Judged], review: float | None) -> str:
    """How many are rejected, sent to review (where that may be) and passed: `40 rejected, 2 passed`."""
    rejected = sum(p.rejected for p in pictures)
    reviewed = 0 if review is None else _between(pictures, review)
    middle = "" if review is None else f", {reviewed} sent to review"
    return f"{rejected} rejected{middle}, {len(pictures) - rejected - reviewed} passed"


def _between(pictures: Sequence[Judged], review: float) -> int:
    """How many lie between the two thresholds."""
    return sum(not p.rejected and p.raw_score >= review for p in pictures)


def _review(evaluation: Evaluation, review: float) -> Tile:
    """Who lies between the two thresholds."""
    good, defective = _between(evaluation.good, review), _between(evaluation.defective, review)
    meaning = f"{good} good and {defective} defective pictures lie between the two thresholds: somebody should look."
    return Tile("Sent to review", percent((good + defective) / len(evaluation.pictures)), meaning)


def _false_alarms(evaluation: Evaluation, judge: Judge) -> Tile:
    """The false-alarm rate, and whether it fits the target given both numbers of pictures."""
    estimate = judge.calibration.image_estimate
    alarms = sum(p.rejected for p in evaluation.good)
    check = resplit_check([Split(estimate.n_images, evaluation.n_good, alarms)], estimate.target_fpr)
    low, high = (percent(rate) for rate in check.interval)
    fits = "fits" if check.passed else "does not fit"
    meaning = (
        f"{alarms} of {evaluation.n_good} good pictures rejected. That {fits} the target of "
        f"{percent(estimate.target_fpr)}: {low} to {high} is to be expected with so many pictures."
    )
    tone: Tone = "good" if check.passed else "bad"
    spread = interval(evaluation.intervals.false_alarm_rate, percent)
    return Tile("False alarms", percent(check.rate), meaning, tone, spread)


def _charts(evaluation: Evaluation, judge: Judge, comparison: Comparison | None) -> Charts:
    scores = scores_of(evaluation)
    review = judge.calibration.review
    at = None if review is None else float(judge.calibration.image.calibrated(np.asarray(review)))
    histogram = "How far apart they lie. Everything right of the line is rejected; the usual good picture is at 0.1."
    if at is not None:
        histogram += " Between the dashed line and the other one somebody should look."
    charts: list[tuple[Chart, str]] = [(score_histogram(scores, at), histogram)]
    others = {} if comparison is None else side_by_side.others(comparison)
    if len(scores.good) and len(scores.defective):
        words = (
            "ROC curve: what other thresholds would do. Further up catches more defects, further right costs more "
            "false alarms. Dots are at the thresholds in force."
        )
        charts.append((roc(scores, {name: scores_of(other) for name, other in others.items()}), words))
    if evaluation.pro is not None:
        words = (
            "PRO curve: how much of a defect the mask would cover, the mean over all defects, against how much sound "
            "surface it would mark with it. Its area up to 30 % is AUPRO."
        )
        curves = {name: other.pro for name, other in others.items()}
        charts.append((pro(evaluation.pro, curves), words))
    return Charts("Good and defective pictures", charts)


def _per_defect(evaluation: Evaluation) -> Table:
    rows = [_row(name.replace("_", " "), quality) for name, quality in evaluation.per_defect.items()]
    rows.append(_row("all", evaluation.overall))
    columns = ("defect", "pictures", "caught", "image AUROC", "pixel AUROC", "AUPRO", "F1")
    return Table("By type of defect", *filled(columns, rows), "Each type against all good pictures.")


def _row(name: str, quality: Quality) -> tuple[str, ...]:
    numbers = (quality.image_auroc, quality.pixel_auroc, quality.pixel_aupro, quality.f1)
    caught = NOTHING if quality.recall is None else percent(quality.recall)
    return name, str(quality.n), caught, *(NOTHING if number is None else plain(number) for number in numbers)


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
    second = (
        ("Worst misses", f"Defective pictures passed: {len(misses)}. Lowest score first.", misses)
        if misses
        else ("Closest calls among defects", "No defective picture passes. Lowest score first.", defective)
    )
    described = (
        first,
        second,
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
