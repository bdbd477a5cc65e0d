"""What a member of an ensemble is worth: how well it tells synthetic defects from the good pictures they are made on.

No label is needed. A member that was calibrated by folds knows the pictures now, and finds them and their copies too
good; so a copy's score is taken as that of its original by a model that did not know it, plus what the defect adds. For
a member that never learnt from the picture this is the copy's score itself. For the others it is still somewhat too
favourable: on two sets the AUROC came out at 0.85 where models that did not know the pictures had 0.76 and 0.81.
"""

from __future__ import annotations

import numpy as np

from engine.types import F64
from trainers.evaluation.metrics import image_auroc

_LEAST = 0.01  # so that a member that tells nothing apart has next to no say


def weight(held_out: F64, originals: F64, copies: F64) -> float:
    """A member's weight: the AUROC of the defects above chance.

    Of k pictures: `held_out` (k,) raw scores by a model that had not seen them, `originals` (k,) by the member as it is
    served, `copies` (k, d) likewise, with a defect each.
    """
    defective = held_out[:, None] + (copies - originals[:, None])
    auroc = image_auroc(held_out, defective.ravel())
    return max((auroc or 0.5) - 0.5, _LEAST)


def weights(held_out: F64, originals: F64, copies: F64) -> tuple[float, ...]:
    """Of M members, with the axis M before the others, and 1 on average."""
    each = np.array([weight(*member) for member in zip(held_out, originals, copies, strict=True)])
    return tuple(map(float, each / each.mean()))
