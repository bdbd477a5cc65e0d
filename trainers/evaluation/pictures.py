"""Pictures of verdicts, all on one fixed scale: 0.5 is the threshold, so a colour means the same in every picture.

Nothing is stretched to a picture's own range. Good parts lie near 0.1 and stay uncoloured: the overlay is clear up to
0.3 and nearly opaque at 1. Colours are matplotlib's `inferno`, whose lightness rises evenly; the outline is where the
score reaches 0.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engine.types import F32, U8
from trainers.evaluation.evaluate import Judged, Sight
from trainers.evaluation.metrics import Mask

PANELS = ("picture", "ground truth", "heat map", "overlay")
CLEAR_BELOW = 0.3
THRESHOLD = 0.5
_OPACITY = 0.8
_TRUTH_RGB = (0, 190, 255)
_OUTLINE_RGB = (255, 255, 255)
_PAPER, _INK, _FAINT = "#14161a", "#f2f3f5", "#9aa1ab"
_WRONG, _RIGHT = "#ff7a6b", "#55c795"
_SHEET_COLUMNS = 2


def heat(scores: F32) -> U8:
    """Scores (H, W) in 0..1 -> colours (H, W, 3)."""
    return np.asarray(_colours()[np.rint(np.clip(scores, 0, 1) * 255).astype(np.intp)])


def overlay(image: U8, scores: F32) -> U8:
    """The picture (H, W, 3) under its heat map, clear below 0.3, outlined where the score reaches 0.5."""
    cover = np.clip((scores - CLEAR_BELOW) / (1 - CLEAR_BELOW), 0, 1)
    cover = (_OPACITY * np.sqrt(cover))[..., None]  # (H, W, 1)
    blend = (image * (1 - cover) + heat(scores) * cover).round().astype(np.uint8)
    return _outlined(blend, scores >= THRESHOLD, _OUTLINE_RGB)


def truth(image: U8, mask: Mask | None) -> U8:
    """The picture with its ground truth tinted and outlined; dimmed without an outline where there is none."""
    if mask is None:
        return (image * 0.55).round().astype(np.uint8)
    tint = np.where(mask[..., None], image * 0.55 + np.array(_TRUTH_RGB) * 0.45, image)
    return _outlined(tint.round().astype(np.uint8), mask, _TRUTH_RGB)


def panels(sight: Sight) -> dict[str, U8]:
    """The four views of a picture, (H, W, 3) each, named as in PANELS."""
    scores = sight.values.astype(np.float32) / np.float32(65535)
    views = (sight.image, truth(sight.image, sight.mask), heat(scores), overlay(sight.image, scores))
    return dict(zip(PANELS, views, strict=True))


def heat_legend() -> bytes:
    """The colour scale from 0 to 1 as the bytes of a PNG file, 256 x 1 px."""
    _, data = cv2.imencode(".png", cv2.cvtColor(_colours()[None], cv2.COLOR_RGB2BGR))
    return data.tobytes()


def fitted(image: U8, side_px: int) -> U8:
    """The picture made smaller, where needed, so that its longer side is at most `side_px`."""
    height, width = image.shape[:2]
    factor = side_px / max(height, width)
    if factor >= 1:
        return image
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def jpeg(image: U8, quality: int = 88) -> bytes:
    """(H, W, 3) RGB -> the bytes of a JPEG file."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


def caption(judged: Judged) -> tuple[str, str]:
    """What a picture is and what was said of it: (`scratch/003.png`, `rejected, 0.81`)."""
    path = Path(judged.item.name)
    name = f"{path.parent.name}/{path.name}" if path.parent.name else path.name
    return name, f"{'rejected' if judged.rejected else 'passed'}, {judged.pred_score:.2f}"


def sheet(sights: Sequence[Sight], title: str) -> Figure:
    """A contact sheet: the four views of each picture, two pictures a row, with the scale they share."""
    rows = -(-len(sights) // _SHEET_COLUMNS)
    height_in = 1.95 * rows + 0.85
    figure = Figure(figsize=(13.5, height_in), facecolor=_PAPER)
    figure.text(0.012, 1 - 0.36 / height_in, title, color=_INK, fontsize=16, fontweight="bold", va="center")
    _scale_bar(figure.add_axes((0.66, 1 - 0.46 / height_in, 0.328, 0.17 / height_in)))
    for i, sight in enumerate(sights):
        row, column = divmod(i, _SHEET_COLUMNS)
        bottom = 1 - (0.85 + 1.95 * (row + 1) - 0.15) / height_in
        _draw_sight(figure, sight, (0.012 + 0.497 * column, bottom, 0.48, 1.5 / height_in))
    return figure


def write_pictures(folder: Path, sights: Iterable[Sight], title: str, per_sheet: int = 24) -> list[Path]:
    """Write the overlay of every picture at its own size and contact sheets of all; returns the sheets' paths.

    Overlays are `overlays/NAME.jpg` with the picture's own name and folders; only one sheet is in memory at a time.
    """
    sheets: list[Path] = []
    page: list[Sight] = []
    for sight in sights:
        target = (folder / "overlays" / sight.judged.item.name).with_suffix(".jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(jpeg(panels(sight)["overlay"]))
        page.append(sight)
        if len(page) == per_sheet:
            sheets.append(_write_sheet(folder, page, title, len(sheets) + 1))
            page = []
    if page:
        sheets.append(_write_sheet(folder, page, title, len(sheets) + 1))
    return sheets


def _write_sheet(folder: Path, page: Sequence[Sight], title: str, number: int) -> Path:
    path = folder / f"sheet-{number:03d}.png"
    sheet(page, f"{title}, sheet {number}").savefig(path, dpi=110)
    return path


def _draw_sight(figure: Figure, sight: Sight, box: tuple[float, float, float, float]) -> None:
    """Draw the four views into `box` (left, bottom, width, height in figure shares), names and verdict above them."""
    left, bottom, width, height = box
    name, verdict = caption(sight.judged)
    top = bottom + height * 1.02
    figure.text(left, top, name, color=_INK, fontsize=9.5, va="bottom")
    colour = _RIGHT if sight.judged.right else _WRONG
    figure.text(left + width, top, verdict, color=colour, fontsize=9.5, fontweight="bold", va="bottom", ha="right")
    step = width / len(PANELS)
    for i, (view_name, view) in enumerate(panels(sight).items()):
        axes = figure.add_axes((left + i * step, bottom, step * 0.97, height), anchor="NW")
        axes.imshow(fitted(view, 320), interpolation="antialiased")
        axes.set_axis_off()
        if view_name == "ground truth" and sight.mask is None:
            text = "good" if sight.judged.item.defect is None else "no ground truth"
            axes.text(0.5, 0.5, text, color=_INK, fontsize=9, ha="center", va="center", transform=axes.transAxes)


def _scale_bar(axes: Axes) -> None:
    """The colour scale of all heat maps, with the threshold marked."""
    axes.imshow(heat(np.linspace(0, 1, 512, dtype=np.float32)[None, :]), aspect="auto", extent=(0, 1, 0, 1))
    axes.axvline(THRESHOLD, color=_INK, linewidth=1.4)
    axes.set_yticks([])
    axes.set_xticks([0.1, THRESHOLD, 1], ["0.1 usual", "0.5 threshold", "1"])
    axes.tick_params(colors=_FAINT, labelsize=8.5, length=3)
    axes.spines[:].set_visible(False)


def _outlined(image: U8, mask: npt.NDArray[np.bool_], rgb: tuple[int, int, int]) -> U8:
    """The picture with the mask's outer edge drawn, as wide as suits its size."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    width_px = max(1, round(max(mask.shape) / 256))
    return np.asarray(cv2.drawContours(image.copy(), contours, -1, rgb, width_px, cv2.LINE_AA), np.uint8)


@cache
def _colours() -> U8:
    """(256, 3) RGB of `inferno`, dark to light."""
    rgba = np.asarray(matplotlib.colormaps["inferno"](np.linspace(0, 1, 256)))  # (256, 4)
    return (rgba[:, :3] * 255).round().astype(np.uint8)
