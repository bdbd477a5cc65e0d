"""The rows of DROC's evaluations, as settings: figures 4, 5, 7 and 9 to 11, and one class against others.

Where only the classifier or its training pictures differ, the representation is learnt once and `learnt_by` names it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainers.base import AS_GIVEN, ClassifierKind, PretextKind
from trainers.droc.settings import Settings
from trainers.droc.views import ACCUMULATED

TASKS: tuple[PretextKind, ...] = ("rotation", "contrastive", "distaug")
CLASSIFIERS: tuple[ClassifierKind, ...] = ("oc-svm", "oc-svm-linear", "kde", "gde")
BATCHES = (32, 64, 128, 256, 512)  # Figure 8's
DEPTHS = (0, 1, 2, 4, 8)
SHARES = ("1 %", "3 %", "10 %", "30 %", AS_GIVEN)  # Figure 9: from 50 pictures to 5,000
RATIOS = ("1 % outliers", "5 % outliers", "10 % outliers")
FEW = "10 %"  # the small portion of good pictures of Figure 11


@dataclass(frozen=True, slots=True)
class Line:
    """One row: its figure, its label there, its settings, the copies of the data that its classifier is fitted to.

    Its representation is that of `learnt_by`, learnt on the copy `learnt_on` (None: the classifier's own).
    """

    figure: str
    label: str
    settings: Settings
    copies: tuple[str, ...] = (AS_GIVEN,)
    learnt_by: Settings | None = None
    learnt_on: str | None = None


def lines(protocol: str, settings: Settings) -> list[Line]:
    """The rows of a protocol; none where the paper has none."""
    if protocol == "one-class":
        return _one_class(settings)
    if protocol == "ablation":
        return _ablation(settings)
    if protocol == "small":
        return _small(replace(settings, classifier="oc-svm"))
    if protocol == "contaminated":
        return _contaminated(settings)
    return []


def _one_class(settings: Settings) -> list[Line]:
    """Every pretext task with every classifier, and rotation prediction's own score."""
    found = []
    for task in TASKS:
        made = replace(settings, pretext=task)
        kinds = (*CLASSIFIERS, "rotation-softmax") if task == "rotation" else CLASSIFIERS
        found += [
            Line("two stages", f"{task}, {kind}", replace(made, classifier=kind), learnt_by=made) for kind in kinds
        ]
    return found


def _ablation(settings: Settings) -> list[Line]:
    svm = replace(settings, classifier="oc-svm")
    batches = [
        Line("Figure 4b", f"{task}, batch {size}", replace(svm, pretext=task, batch_size=size))
        for task in ("contrastive", "distaug")
        for size in BATCHES
    ]
    depths = [
        Line("Figure 4c", f"{task}, head of {layers}", replace(svm, pretext=task, head_layers=layers))
        for task in ("contrastive", "distaug")
        for layers in DEPTHS
    ]
    wider = [
        Line("Figure 7", f"+ {ACCUMULATED[n - 1]}", replace(svm, pretext="distaug", distributions=ACCUMULATED[:n]))
        for n in range(1, len(ACCUMULATED) + 1)
    ]
    return [*batches, *depths, *wider]


def _small(svm: Settings) -> list[Line]:
    """Figure 9: representations of few pictures, a classifier of all; and the two that learn from none."""
    found = [
        Line("Figure 9", f"{task} on {share}", svm, learnt_by=replace(svm, pretext=task), learnt_on=share)
        for task in TASKS
        for share in SHARES
    ]
    baselines: tuple[PretextKind, ...] = ("random", "imagenet")
    return [*found, *(Line("Figure 9", task, replace(svm, pretext=task)) for task in baselines)]


def _contaminated(settings: Settings) -> list[Line]:
    """Figure 10: outliers among the training pictures of both stages; Figure 11: of the first, and few good ones."""
    found = []
    for task in TASKS:
        made, svm = replace(settings, pretext=task), replace(settings, pretext=task, classifier="oc-svm")
        found += [
            Line("Figure 10", f"{task}, {kind}", replace(made, classifier=kind), RATIOS, made) for kind in CLASSIFIERS
        ]
        found += [Line("Figure 11", f"{task} on {ratio}", svm, (FEW,), made, ratio) for ratio in RATIOS]
    return found
