"""What each member of an ensemble adds to its raw score."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engine.contract import Ensemble


def shares(ensemble: Ensemble, raw_scores: Mapping[str, float]) -> dict[str, float]:
    """By the members' raw scores, their parts of the ensemble's; they add up to it.

    Of a mean each member has its surprise times its weight's share; of a maximum the largest surprise is all of it.
    """
    surprises = {each.name: float(each.image.of(np.array([raw_scores[each.name]]))[0]) for each in ensemble.members}
    if ensemble.rule == "max":
        largest = max(surprises, key=lambda name: surprises[name])
        return {name: surprise if name == largest else 0.0 for name, surprise in surprises.items()}
    total = sum(each.weight for each in ensemble.members)
    return {each.name: surprises[each.name] * each.weight / total for each in ensemble.members}
