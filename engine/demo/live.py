"""The demo's live table: what every camera's frames became, as they become it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from engine.demo.verdicts import Verdicts
from engine.streams.reader import Published
from engine.types import Result, Verdict

_COLOURS: Mapping[Verdict, str] = {"good": "green", "review": "yellow", "reject": "red"}


class _Camera:
    def __init__(self, members: int) -> None:
        self.verdicts = Verdicts(members)
        self.last = ""
        self.latency_ms: list[float] = []


class LiveTable:
    """Counts results per camera and shows them; on a terminal the table is redrawn in place, elsewhere only its end.

    `members` are the ensemble's, the one that sees every frame first.
    """

    def __init__(self, console: Console, total: int, members: Sequence[str]) -> None:
        self._total = total
        self._members = members
        self._cameras: dict[str, _Camera] = defaultdict(lambda: _Camera(len(members)))
        self._dead = 0
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
                self._dead += 1
        if self._live is not None:
            self._live.update(self._table())

    def _count(self, result: Result) -> None:
        camera = self._cameras[result.camera]
        camera.verdicts.add(result)
        camera.latency_ms.append(result.timing_ms["total"])
        if result.decision is not None:
            colour = _COLOURS[result.decision]
            members = (f"{result.scores[name]:.3f}" if name in result.scores else "-" for name in self._members)
            numbers = " ".join(f"{number:>5}" for number in (f"{result.pred_score:.3f}", *members))
            camera.last = f"[{colour}]{result.decision:<6}[/{colour}] {numbers}"

    def _table(self) -> Table:
        done = sum(len(camera.latency_ms) for camera in self._cameras.values()) + self._dead
        dead = f", {self._dead} dead letters" if self._dead else ""
        title = f"{done} of {self._total} frames{dead}"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        last = "last:  " + " ".join(f"{name:>5}" for name in ("fused", *self._members))
        for name in ("camera", "frames", "review", "reject", f"{self._members[0]} alone", "p50 ms", last):
            table.add_column(name, justify="left" if name in ("camera", last) else "right", no_wrap=True)
        for name, camera in sorted(self._cameras.items()):
            found = camera.verdicts
            counts = (found.frames, found.decided["review"], found.decided["reject"], found.alone)
            table.add_row(name, *map(str, counts), f"{np.median(camera.latency_ms):.1f}", camera.last)
        return table
