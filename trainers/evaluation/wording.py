"""How figures are written in reports, and which scores are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from trainers.evaluation.bootstrap import Interval
from trainers.evaluation.charts import Scores
from trainers.evaluation.evaluate import Evaluation

NOTHING = "–"


def percent(share: float) -> str:
    """`5.0 %`."""
    return f"{100 * share:.1f}\u00a0%"


def plain(number: float) -> str:
    """`0.953`."""
    return f"{number:.3f}"


def interval(found: Interval | None, write: Callable[[float], str]) -> str:
    """`0.912 to 0.981`, empty where there is none."""
    return "" if found is None else f"{write(found[0])} to {write(found[1])}"


def filled(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """A table without the columns in which there is nothing, a dash in every row."""
    kept = [i for i in range(len(columns)) if any(row[i] != NOTHING for row in rows)]
    return [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]


def scores_of(evaluation: Evaluation) -> Scores:
    """Its calibrated scores, for a chart."""
    good, defective = (np.array([p.pred_score for p in each]) for each in (evaluation.good, evaluation.defective))
    return Scores(good, defective)
