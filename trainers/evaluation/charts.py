"""Charts as SVG, drawn once for light and once for dark pages."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from engine.types import F64
from trainers.evaluation.metrics import image_roc

_BINS = np.linspace(0, 1, 51)
_SIZE_IN = (6.4, 3.7)


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of a chart; the page's own background shows through."""

    ink: str
    faint: str
    grid: str
    good: str
    bad: str


LIGHT = Theme(ink="#1c2530", faint="#5b6773", grid="#e3e7eb", good="#1f8a70", bad="#d1495b")
DARK = Theme(ink="#e8ecf1", faint="#9aa7b4", grid="#2b333d", good="#4fc3a1", bad="#ff7b88")


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart in both themes, as SVG documents, and its content in words."""

    light: bytes
    dark: bytes
    words: str


def score_histogram(good: F64, defective: F64) -> Chart:
    """Calibrated scores of good and of defective pictures with the threshold between them."""

    def draw(axes: Axes, theme: Theme) -> None:
        axes.axvspan(0.5, 1, color=theme.bad, alpha=0.06, linewidth=0)
        for scores, colour, name in ((good, theme.good, "good"), (defective, theme.bad, "defective")):
            if len(scores):
                counts, _ = np.histogram(scores, _BINS)
                label = f"{name} ({len(scores)})"
                axes.stairs(counts, _BINS, fill=True, color=colour, alpha=0.35)
                axes.stairs(counts, _BINS, color=colour, linewidth=1.6, label=label)
        axes.axvline(0.5, color=theme.ink, linewidth=1.4)
        axes.text(0.51, 0.97, "rejected from here", color=theme.ink, fontsize=10, va="top", transform=_over(axes))
        axes.set(xlim=(0, 1), xlabel="score", ylabel="pictures")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.grid(axis="y", color=theme.grid, linewidth=0.8)
        axes.legend(
            frameon=False, fontsize=10.5, labelcolor=theme.ink, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2
        )

    words = f"Histogram of the scores of {len(good)} good and {len(defective)} defective pictures, threshold at 0.5."
    return _chart(draw, words)


def roc(good: F64, defective: F64) -> Chart:
    """Share of defects caught against false alarms for every threshold; the chosen one (0.5) is marked."""
    fpr, tpr = image_roc(good, defective)
    here = float(np.mean(good >= 0.5)), float(np.mean(defective >= 0.5))

    def draw(axes: Axes, theme: Theme) -> None:
        axes.plot([0, 1], [0, 1], color=theme.faint, linewidth=1, linestyle=(0, (2, 4)))
        axes.fill_between(fpr, tpr, color=theme.good, alpha=0.12, linewidth=0, step="post")
        axes.plot(fpr, tpr, color=theme.good, linewidth=2.2, drawstyle="steps-post", solid_joinstyle="round")
        axes.plot(*here, marker="o", markersize=9, color=theme.bad, clip_on=False, zorder=5)
        axes.annotate(
            "this threshold", here, (10, -4), textcoords="offset points", color=theme.ink, fontsize=10, va="top"
        )
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="good pictures rejected", ylabel="defects caught")
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(color=theme.grid, linewidth=0.8)

    words = f"ROC curve; at the threshold {here[1]:.0%} of defects are caught and {here[0]:.1%} of good ones rejected."
    return _chart(draw, words)


def _over(axes: Axes) -> matplotlib.transforms.Transform:
    """x in data, y in shares of the axes' height."""
    return axes.get_xaxis_transform()


def _chart(draw: Callable[[Axes, Theme], None], words: str) -> Chart:
    return Chart(light=_svg(draw, LIGHT), dark=_svg(draw, DARK), words=words)


def _svg(draw: Callable[[Axes, Theme], None], theme: Theme) -> bytes:
    figure = Figure(figsize=_SIZE_IN, layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    axes.set_axisbelow(True)
    draw(axes, theme)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.faint)
    axes.tick_params(colors=theme.faint, labelsize=10, length=0, pad=6)
    axes.xaxis.label.set(color=theme.faint, fontsize=10.5)
    axes.yaxis.label.set(color=theme.faint, fontsize=10.5)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "chart"}):  # the same numbers give the same bytes
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()
