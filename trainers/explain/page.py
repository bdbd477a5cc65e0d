"""Explanations as files: a page to look at, the pictures, the arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.types import F32, U8, Result
from trainers.evaluation.pictures import overlay
from trainers.evaluation.report import Plate, Plates, Section, Table, Tile, Tiles, write_report
from trainers.explain.explanation import AGREES_FROM, Explanation
from trainers.explain.rebuild import TOLERANCE
from trainers.explain.views import scores, views

PAGE = "explanation.html"
ARRAYS = "arrays.npz"
_CAPTIONS = {  # title and meaning of each of `views`
    "heat-map": (
        "Heat map",
        "Where the part differs from good ones, on the scale of the verdict. The outline is the threshold.",
    ),
    "integrated-gradients": (
        "Integrated gradients",
        "The pixels that the number which decided rests on, compared with {baseline}.",
    ),
    "for-and-against": (
        "For and against",
        "The same pixels with their sign: red ones raise the score, blue ones lower it.",
    ),
    "occlusion": (
        "Occlusion",
        "How much that number changes where a window shows {baseline}. A check: it asks the served model.",
    ),
    "grad-cam": (
        "Grad-CAM",
        "Where the picture shows the features that raise the score; not only at the place that decided.",
    ),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """What is explained: the picture's name and pixels (H, W, 3), and what the whole bundle says of it.

    `shares` are those of an ensemble's members in its raw score, and empty where the bundle is one model; `baseline` is
    what the picture is compared with, see `trainers.explain.baseline`.
    """

    name: str
    image: U8
    result: Result
    shares: Mapping[str, float]
    baseline: str

    @property
    def verdict(self) -> str:
        """In a word or three."""
        words = {"good": "passed", "review": "to be reviewed", "reject": "rejected"}
        return words[self.result.decision or "review"]


def write_explanations(folder: Path, subject: Subject, explanations: Mapping[str, Explanation]) -> None:
    """Write the page of the models' explanations into a folder, and of each the pictures and arrays.

    Files of one of several models are in a folder of its name.
    """
    tiles = [_score(name, found, subject.shares) for name, found in explanations.items()]
    sections: list[Section] = [Tiles("Verdict", tiles)]
    if len(explanations) > 1:
        sections.append(_together(folder, subject))
    for name, found in explanations.items():
        own = folder if len(explanations) == 1 else folder / name
        pictures = views(found)
        _write_files(own, found, pictures)
        sections += [_plates(name, found, pictures, subject.baseline), _checks(name, found)]
    title = f"{subject.name}: {subject.verdict}"
    subtitle = f"{subject.result.model}, {subject.result.pred_score:.3f} with the threshold at 0.5"
    write_report(folder / PAGE, title, subtitle, sections)


def _together(folder: Path, subject: Subject) -> Plates:
    """The heat map of all models together."""
    picture = overlay(subject.image, scores(subject.result.anomaly_map))
    folder.mkdir(parents=True, exist_ok=True)
    _write_png(folder / "heat-map.png", picture)
    plates = [
        Plate("Picture", subject.image, "As it came."),
        Plate("Heat map", picture, "Of all models together; below are those of each."),
    ]
    return Plates("What they saw together", plates, legend=True)


def _write_files(folder: Path, explanation: Explanation, pictures: Mapping[str, U8]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        _write_png(folder / f"{name}.png", picture)
    arrays: dict[str, U8 | F32] = {
        "picture": explanation.picture,
        "baseline": explanation.attribution.baseline,
        "heat_map": scores(explanation.decision.anomaly_map),
        "integrated_gradients": explanation.attribution.values,
        "occlusion": explanation.occlusion.values,
    }
    if explanation.cam is not None:
        arrays["grad_cam"] = explanation.cam.values
    np.savez_compressed(folder / ARRAYS, allow_pickle=False, **arrays)


def _write_png(path: Path, picture: U8) -> None:
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def _score(name: str, explanation: Explanation, shares: Mapping[str, float]) -> Tile:
    rejected = explanation.decision.pred_label
    verdict = "rejected" if rejected else "passed"
    if shares:
        share = shares[name] / max(sum(shares.values()), np.finfo(np.float64).tiny)
        meaning = f"Alone it would have {verdict} the part; {share:.0%} of the ensemble's score comes from it."
    else:
        meaning = f"{verdict.capitalize()}: the threshold is at 0.5, the usual good part at 0.1."
    score = f"{explanation.decision.pred_score:.3f}"
    return Tile(f"Score of {name}", score, meaning, "bad" if rejected else "good")


def _plates(name: str, explanation: Explanation, pictures: Mapping[str, U8], baseline: str) -> Plates:
    other = {"blur": "its blurred copy", "black": "black"}.get(baseline, f"the picture {baseline}")
    plates = [Plate("Picture", explanation.image, "As it came.")]
    for view, picture in pictures.items():
        title, caption = _CAPTIONS[view]
        plates.append(Plate(title, picture, caption.format(baseline=other)))
    return Plates(f"What {name} saw", plates, _asked(explanation), legend=True)


def _asked(explanation: Explanation) -> str:
    if explanation.place is None:
        decided = "This model gives the score of the whole picture itself: that is what is explained."
    else:
        x, y = explanation.place
        height, width = explanation.image.shape[:2]
        decided = (
            f"What decided is the map's highest value, {x / width:.0%} from the left and {y / height:.0%} from the "
            f"top: that is what is explained."
        )
    return f"{decided} Colours but the heat map's are stretched to each picture: they say where, not how much."


def _checks(name: str, explanation: Explanation) -> Table:
    found = explanation.attribution
    off = abs(explanation.rebuilt_score - explanation.raw_score) / max(abs(explanation.raw_score), 1e-12)
    rows = [
        ("same model", f"gradients come from a model whose score is {off:.0e} off", f"{TOLERANCE:.0e} or less", "yes"),
        (
            "complete",
            f"attributions miss {found.gap:.3g} of {found.difference:.3g} in {found.steps} steps",
            f"{found.allowed:.3g}",
            "yes" if found.complete else "no: more --steps",
        ),
        (
            "occlusion agrees",
            f"correlation {explanation.agreement:.2f}",
            f"{AGREES_FROM} or more",
            "yes" if explanation.agreement >= AGREES_FROM else "no: trust the heat map and occlusion only",
        ),
    ]
    columns = ("check", "measured", "wanted", "holds")
    return Table(f"Whether to believe it: {name}", columns, rows)
