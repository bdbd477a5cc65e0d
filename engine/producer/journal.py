"""The producer's journal: one line per frame that the server accepted, for `engine audit`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from engine.errors import UsageError


class Journal:
    """Appends `ENTRY<tab>ID` lines to a file; every batch reaches the operating system before the next is sent."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{path}: journal cannot be written ({error.strerror}); give another --journal") from None

    def write(self, accepted: Iterable[tuple[str, str]]) -> None:
        """Add (entry id, frame id) pairs; ids hold no tabs and no line breaks."""
        self._file.writelines(f"{entry}\t{frame}\n" for entry, frame in accepted)
        self._file.flush()

    def close(self) -> None:
        """Force what was written to the disk and close."""
        os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self.close()


def read_journal(path: Path) -> Iterator[tuple[str, str]]:
    """The (entry id, frame id) pairs of a journal; raises UsageError for a line that is none."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            entry, tab, frame = line.rstrip("\n").partition("\t")
            if not tab:
                raise UsageError(f"{path}, line {number}: expected ENTRY<tab>ID, got {line.strip()!r}")
            yield entry, frame
