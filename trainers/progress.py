"""How long work shows itself: a bar on a terminal, a plain line now and then elsewhere, a list in tests."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

LINE_EVERY_S = 5.0


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        """Some steps are done; `note` says how it stands (a loss, say)."""


class Progress(Protocol):
    """Where long work is shown."""

    def task(self, name: str, total: int) -> AbstractContextManager[Task]:
        """A context in which `total` steps are done."""

    def say(self, line: str) -> None:
        """One line for a person."""


def on_stderr() -> Progress:
    """Bars where standard error is a terminal, plain lines elsewhere."""
    console = Console(stderr=True)
    return BarProgress(console) if console.is_terminal else LineProgress(sys.stderr)


class BarProgress:
    """A bar per task with its note and the time left."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """See `Progress.task`."""
        text = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
        columns = (text[0], BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), text[1])
        with Bars(*columns, console=self._console) as bars:
            yield _BarTask(bars, name, total)

    def say(self, line: str) -> None:
        """See `Progress.say`."""
        self._console.print(line, markup=False, highlight=False)


class _BarTask:
    def __init__(self, bars: Bars, name: str, total: int) -> None:
        self._bars = bars
        self._id = bars.add_task(name, total=total, note="")

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        self._bars.update(self._id, advance=steps, note=note)


class LineProgress:
    """A line when a task ends, and one every five seconds on the way, with the time left."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """See `Progress.task`."""
        yield _LineTask(name, total, self.say, self._clock)

    def say(self, line: str) -> None:
        """See `Progress.say`."""
        self._stream.write(line + "\n")
        self._stream.flush()


class _LineTask:
    def __init__(self, name: str, total: int, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._name, self._total, self._say, self._clock = name, total, say, clock
        self._done = 0
        self._started_s = self._said_s = clock()

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        self._done += steps
        now_s = self._clock()
        ends = self._done >= self._total
        if not ends and now_s - self._said_s < LINE_EVERY_S:
            return
        self._said_s = now_s
        elapsed_s = now_s - self._started_s
        left_s = elapsed_s * (self._total - self._done) / self._done
        time_text = f"{elapsed_s:.1f} s" if ends else f"{left_s:.0f} s left"
        self._say(" ".join(filter(None, [f"{self._name}: {self._done}/{self._total}", time_text, note])))


@dataclass(frozen=True, slots=True)
class RecordedProgress:
    """The double: remembers the lines, and (task, steps done, note) of every advance."""

    lines: list[str] = field(default_factory=list)
    advances: list[tuple[str, int, str]] = field(default_factory=list)

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """See `Progress.task`."""
        yield _RecordedTask(name, self.advances)

    def say(self, line: str) -> None:
        """See `Progress.say`."""
        self.lines.append(line)


@dataclass(slots=True)
class _RecordedTask:
    name: str
    advances: list[tuple[str, int, str]]
    done: int = 0

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        self.done += steps
        self.advances.append((self.name, self.done, note))
