"""What commands print: one JSON document or text on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console

out = Console()
err = Console(stderr=True)

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def start_logging(level: int = logging.INFO) -> None:
    """Log the engine's own messages to stderr, one plain line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_FORMAT))
    logger = logging.getLogger("engine")
    logger.handlers = [handler]
    logger.setLevel(level)
    logging.getLogger("trainers").handlers = [handler]
    logging.getLogger("trainers").setLevel(level)


def say(line: str) -> None:
    """One line on stdout as it is: nothing in it is markup, and a long path is not broken."""
    out.print(line, markup=False, highlight=False, soft_wrap=True)


def to_json(document: Mapping[str, Any]) -> str:
    """A document as indented JSON with a final newline; numbers are finite or null."""
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def print_json(document: Mapping[str, Any]) -> None:
    """The one JSON document of `--json`."""
    sys.stdout.write(to_json(document))


def fail(message: str) -> None:
    """One line on stderr."""
    one_line = " ".join(message.split())
    sys.stderr.write(f"engine: error: {one_line}\n")
