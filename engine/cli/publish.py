"""`engine publish` and `engine rollback`: the bundle at a place that `engine serve` watches, switched in one step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.cli import console
from engine.published import Place, Switch

Where = Annotated[Path, typer.Argument(metavar="PLACE", help="What a line's `bundle` names.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def publish(
    bundle: Annotated[Path, typer.Argument(help="The bundle to copy there.")], place: Where, json: Json = False
) -> None:
    """Put a bundle where a line reads it; a running `engine serve` swaps to it and loses no frame."""
    _show(Place(place).publish(bundle), json)


def rollback(place: Where, json: Json = False) -> None:
    """Put back the bundle that stood there before."""
    _show(Place(place).roll_back(), json)


def _show(switch: Switch, json: bool) -> None:
    if json:
        console.print_json({"model": switch.model, "before": switch.before})
    else:
        console.say(f"{switch.model} (before: {switch.before or 'nothing'})")
