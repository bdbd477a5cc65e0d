"""The demo's live table: what every camera's frames became, as they become it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from engine.streams.reader import Published
from engine.types import Result


@dataclass(slots=True)
class _Camera:
    frames: int = 0
    rejected: int = 0
    dead: int = 0
    last: str = ""
    latency_ms: list[float] = field(default_factory=list)


class LiveTable:
    """Counts results per camera and shows them; on a terminal the table is redrawn in place, elsewhere only its end."""

    def __init__(self, console: Console, total: int) -> None:
        self._total = total
        self._cameras: dict[str, _Camera] = defaultdict(_Camera)
        self._live = Live(console=console, refresh_per_second=8) if console.is_terminal else None
        self._console = console

    def __enter__(self) -> LiveTable:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        else:
            self._console.print(self._table())

    def update(self, published: Iterable[Published]) -> None:
        """Count what was published."""
        for item in published:
            if isinstance(item.end, Result):
                self._count(item.end)
            else:
                self._cameras["(dead letters)"].dead += 1
        if self._live is not None:
            self._live.update(self._table())

    def _count(self, result: Result) -> None:
        camera = self._cameras[result.camera]
        camera.frames += 1
        camera.rejected += bool(result.pred_label)
        camera.latency_ms.append(result.timing_ms["total"])
        colour = "red" if result.pred_label else "green"
        camera.last = f"[{colour}]{result.decision:<6}[/{colour}] {result.pred_score:.3f}  {result.id}"

    def _table(self) -> Table:
        done = sum(camera.frames + camera.dead for camera in self._cameras.values())
        table = Table(title=f"{done} of {self._total} frames", title_justify="left")
        for name in ("camera", "frames", "rejected", "p50 ms", "last frame"):
            table.add_column(name, justify="left" if name in ("camera", "last frame") else "right")
        for name, camera in sorted(self._cameras.items()):
            p50 = f"{np.median(camera.latency_ms):.1f}" if camera.latency_ms else ""
            table.add_row(name, str(camera.frames + camera.dead), str(camera.rejected), p50, camera.last)
        return table
