"""One self-contained HTML page out of sections: tiles of numbers, charts, galleries, tables, text.

Pictures and charts are inlined, nothing is loaded from anywhere, and the page follows the reader's light or dark theme
and the width of a phone. Text is escaped by the template; sections carry no HTML.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import ClassVar, Literal

import jinja2

from engine.types import U8
from trainers.evaluation.charts import Chart
from trainers.evaluation.pictures import fitted, heat_legend, jpeg

Tone = Literal["neutral", "good", "bad"]
_THUMBNAIL_PX = 360
_PLATE_PX = 720


@dataclass(frozen=True, slots=True)
class Tile:
    """One number that matters, and what it means in plain words; `spread` is its 95 % interval."""

    label: str
    value: str
    meaning: str
    tone: Tone = "neutral"
    spread: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """A picture in a gallery: `views` (name, (H, W, 3) RGB) stand side by side."""

    title: str
    verdict: str
    views: Sequence[tuple[str, U8]]
    tone: Tone = "neutral"


@dataclass(frozen=True, slots=True)
class Tiles:
    """The numbers that matter."""

    kind: ClassVar[str] = "tiles"
    title: str
    tiles: Sequence[Tile]
    intro: str = ""


@dataclass(frozen=True, slots=True)
class Charts:
    """Charts side by side, each with a caption."""

    kind: ClassVar[str] = "charts"
    title: str
    charts: Sequence[tuple[Chart, str]]
    intro: str = ""


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures with their verdicts; `legend` shows the colour scale of heat maps."""

    kind: ClassVar[str] = "gallery"
    title: str
    cards: Sequence[Card]
    intro: str = ""
    legend: bool = False


@dataclass(frozen=True, slots=True)
class Plate:
    """One large picture (H, W, 3) RGB and what it shows."""

    title: str
    picture: U8
    caption: str


@dataclass(frozen=True, slots=True)
class Plates:
    """Large pictures to be looked at one by one; `legend` shows the colour scale of heat maps."""

    kind: ClassVar[str] = "plates"
    title: str
    plates: Sequence[Plate]
    intro: str = ""
    legend: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table; every row has as many cells as there are columns, the first of which names the row.

    What follows a line break in a cell is written small, below.
    """

    kind: ClassVar[str] = "table"
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    intro: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Headings with a plain sentence each."""

    kind: ClassVar[str] = "facts"
    title: str
    facts: Sequence[tuple[str, str]]
    intro: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """Paragraphs."""

    kind: ClassVar[str] = "text"
    title: str
    paragraphs: Sequence[str]


Section = Tiles | Charts | Gallery | Plates | Table | Facts | Text


def write_report(path: str | Path, title: str, subtitle: str, sections: Sequence[Section]) -> Path:
    """Write the page and return its path; folders are made as needed."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(render(title, subtitle, sections), encoding="utf-8")
    return target


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["thumbnail"] = lambda image: _data_url("image/jpeg", jpeg(fitted(image, _THUMBNAIL_PX)))
    environment.filters["plate"] = lambda image: _data_url("image/jpeg", jpeg(fitted(image, _PLATE_PX)))
    environment.filters["svg"] = lambda data: _data_url("image/svg+xml", data)
    source = (resources.files("trainers.evaluation") / "templates" / "report.html").read_text(encoding="utf-8")
    legend = _data_url("image/png", heat_legend())
    return environment.from_string(source).render(title=title, subtitle=subtitle, sections=sections, legend=legend)


def _data_url(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
