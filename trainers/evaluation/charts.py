"""Charts as SVG, drawn once for light and once for dark pages."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from engine.types import F64
from trainers.evaluation.metrics import FPR_LIMIT, PRO_RATES, image_roc

_BINS = np.linspace(0, 1, 51)
_SIZE_IN = (6.4, 3.7)
_LATE = 0.25  # a review threshold above this leaves no room for words between it and the other one


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of a chart, `others` of curves beside the main one; the page's own background shows through."""

    ink: str
    faint: str
    grid: str
    good: str
    bad: str
    others: tuple[str, ...]


LIGHT = Theme(
    ink="#1c2530",
    faint="#5b6773",
    grid="#e3e7eb",
    good="#1f8a70",
    bad="#d1495b",
    others=("#2f6fb5", "#b7791f", "#7b4fa3", "#5b6773"),
)
DARK = Theme(
    ink="#e8ecf1",
    faint="#9aa7b4",
    grid="#2b333d",
    good="#4fc3a1",
    bad="#ff7b88",
    others=("#7ab0f0", "#e3b455", "#bb98e6", "#9aa7b4"),
)
_STYLES = ((0, ()), (0, (5, 2)), (0, (1, 1.5)), (0, (4, 1.5, 1, 1.5)))


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart in both themes, as SVG documents, and its content in words."""

    light: bytes
    dark: bytes
    words: str


@dataclass(frozen=True, slots=True)
class Scores:
    """Calibrated scores (n,) of good and (m,) of defective pictures by one detector."""

    good: F64
    defective: F64

    @property
    def at_threshold(self) -> tuple[float, float]:
        """The shares of good and of defective pictures that are rejected."""
        return float(np.mean(self.good >= 0.5)), float(np.mean(self.defective >= 0.5))


def score_histogram(scores: Scores, review: float | None = None) -> Chart:
    """Scores of good and of defective pictures, the threshold between them, and the second one where it is set."""

    def draw(axes: Axes, theme: Theme) -> None:
        axes.axvspan(0.5, 1, color=theme.bad, alpha=0.06, linewidth=0)
        for each, colour, name in ((scores.good, theme.good, "good"), (scores.defective, theme.bad, "defective")):
            if len(each):
                counts, _ = np.histogram(each, _BINS)
                label = f"{name} ({len(each)})"
                axes.stairs(counts, _BINS, fill=True, color=colour, alpha=0.35)
                axes.stairs(counts, _BINS, color=colour, linewidth=1.6, label=label)
        axes.axvline(0.5, color=theme.ink, linewidth=1.4)
        axes.text(0.51, 0.97, "rejected from here", color=theme.ink, fontsize=10, va="top", transform=_over(axes))
        if review is not None:
            axes.axvspan(review, 0.5, color=theme.others[1], alpha=0.1, linewidth=0)
            axes.axvline(review, color=theme.others[1], linewidth=1.4, linestyle=(0, (4, 2)))
            x, side = (review - 0.01, "right") if review > _LATE else (review + 0.01, "left")
            words = axes.text(x, 0.97, "reviewed from here", ha=side, va="top", transform=_over(axes))
            words.set(color=theme.ink, fontsize=10)
        axes.set(xlim=(0, 1), xlabel="score", ylabel="pictures")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.grid(axis="y", color=theme.grid, linewidth=0.8)
        _legend(axes, theme)

    n, m = len(scores.good), len(scores.defective)
    second = "" if review is None else f", for review at {review:.2f}"
    return _chart(draw, f"Histogram of the scores of {n} good and {m} defective pictures, threshold at 0.5{second}.")


def roc(scores: Scores, others: Mapping[str, Scores] | None = None) -> Chart:
    """Share of defects caught against false alarms for every threshold; the chosen one (0.5) is marked.

    With `others` on the same pictures, by name.
    """
    here = scores.at_threshold
    beside = others or {}

    def draw(axes: Axes, theme: Theme) -> None:
        axes.plot([0, 1], [0, 1], color=theme.faint, linewidth=1, linestyle=(0, (2, 4)))
        fpr, tpr = image_roc(scores.good, scores.defective)
        axes.fill_between(fpr, tpr, color=theme.good, alpha=0.12, linewidth=0, step="post")
        for (name, other), (colour, style) in zip(beside.items(), _looks(theme, len(beside)), strict=True):
            curve = image_roc(other.good, other.defective)
            axes.plot(*curve, color=colour, linestyle=style, linewidth=1.6, drawstyle="steps-post", label=name)
            axes.plot(*other.at_threshold, marker="o", markersize=6, color=colour, clip_on=False, zorder=4)
        _main(axes, theme, fpr, tpr, beside, drawstyle="steps-post")
        axes.plot(*here, marker="o", markersize=9, color=theme.bad, clip_on=False, zorder=5)
        axes.annotate(
            "this threshold", here, (10, -4), textcoords="offset points", color=theme.ink, fontsize=10, va="top"
        )
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="good pictures rejected", ylabel="defects caught")
        _percents(axes, theme)

    words = f"ROC curve; at the threshold {here[1]:.0%} of defects are caught and {here[0]:.1%} of good ones rejected."
    return _chart(draw, words + _with(beside))


def pro(overlap: F64, others: Mapping[str, F64 | None] | None = None) -> Chart:
    """Mean share of a defect that is marked (151,) against the share of sound pixels marked, `metrics.PRO_RATES`.

    Those of `others` that have no curve keep their colour for other charts.
    """
    everyone = others or {}
    beside = {name: other for name, other in everyone.items() if other is not None}

    def draw(axes: Axes, theme: Theme) -> None:
        axes.fill_between(PRO_RATES, overlap, color=theme.good, alpha=0.12, linewidth=0)
        looks = dict(zip(everyone, _looks(theme, len(everyone)), strict=True))
        for name, other in beside.items():
            colour, style = looks[name]
            axes.plot(PRO_RATES, other, color=colour, linestyle=style, linewidth=1.6, label=name)
        _main(axes, theme, PRO_RATES, overlap, beside)
        axes.set(xlim=(0, FPR_LIMIT), ylim=(0, 1), xlabel="sound pixels marked", ylabel="share of a defect marked")
        _percents(axes, theme)

    found = [float(np.interp(rate, PRO_RATES, overlap)) for rate in (0.01, 0.1)]
    words = f"PRO curve; of a defect {found[0]:.0%} is marked at 1% false pixels, {found[1]:.0%} at 10%."
    return _chart(draw, words + _with(beside))


def _main(axes: Axes, theme: Theme, x: F64, y: F64, beside: Mapping[str, object], drawstyle: str = "default") -> None:
    """The curve that the chart is about, named where there are others."""
    label = "all, fused" if beside else None
    axes.plot(x, y, color=theme.good, linewidth=2.2, drawstyle=drawstyle, solid_joinstyle="round", label=label)
    if beside:
        _legend(axes, theme)


def _looks(theme: Theme, n: int) -> list[tuple[str, tuple[float, tuple[float, ...]]]]:
    """A colour and a dash each, so that curves are told apart without colours too."""
    return [(theme.others[i % len(theme.others)], _STYLES[(i + 1) % len(_STYLES)]) for i in range(n)]


def _legend(axes: Axes, theme: Theme) -> None:
    axes.legend(
        frameon=False, fontsize=10, labelcolor=theme.ink, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=4
    )


def _percents(axes: Axes, theme: Theme) -> None:
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(color=theme.grid, linewidth=0.8)


def _with(others: Mapping[str, object]) -> str:
    return f" With {', '.join(others)} beside it." if others else ""


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
