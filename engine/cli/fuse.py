"""`engine fuse`: several bundles as one, calibrated together."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.bundle import Bundle
from engine.cli import console
from engine.cli.lazy import training
from engine.contract import Precision, Rule
from engine.serving.base import RawBatch
from engine.serving.select import open_local
from engine.types import U8


def fuse(
    bundles: Annotated[list[Path], typer.Argument(help="Two bundles or more, trained on the same folder.")],
    data: Annotated[Path, typer.Option(help="The folder that they were trained on.")],
    out: Annotated[Path, typer.Option(help="The bundle to write.")],
    target_fpr: Annotated[
        float, typer.Option(min=1e-6, max=0.5, help="Share of good pictures that may be rejected.")
    ] = 0.01,
    review_fpr: Annotated[
        float | None, typer.Option(min=1e-6, max=0.5, help="Share of good pictures that may at least be reviewed.")
    ] = None,
    rule: Annotated[Rule, typer.Option(help="How members' tail probabilities are combined.")] = "mean",
    weight: Annotated[
        list[float] | None,
        typer.Option(help="Of a bundle in the mean, in their order; else by synthetic defects."),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="0: all cores.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Make one bundle of several, with one score, one map and thresholds of its own."""
    fusing, progress = training("ensemble.fuse", "fuse"), training("progress", "fuse")
    options = fusing.FuseOptions(
        members=tuple(bundles),
        data=data,
        out=out,
        target_fpr=target_fpr,
        review_fpr=review_fpr,
        rule=rule,
        weights=tuple(weight) if weight else None,
        threads=threads,
    )
    report(fusing.fuse(options, opener(threads), progress.on_stderr()), data, json)


def opener(threads: int) -> Callable[[Bundle, Precision], AbstractContextManager[Callable[[U8], RawBatch]]]:
    """What runs a member while the ensemble is calibrated."""

    @contextmanager
    def open_member(bundle: Bundle, precision: Precision) -> Iterator[Callable[[U8], RawBatch]]:
        predictor = open_local(bundle, "onnx", precision, threads)
        yield predictor.predict
        predictor.close()

    return open_member


def report(made: Any, data: Path, json: bool) -> None:
    """Show what training or fusing made."""
    if json:
        console.print_json(made.to_json())
        return
    calibrate = training("calibration.thresholds", "train")
    for precision, calibration in made.calibration.items():
        console.out.print(f"\n[bold]{precision}[/bold]")
        console.out.print(calibrate.describe(calibration), markup=False, highlight=False)
    console.say(f"\n{made.bundle} is ready after {made.train_s:.0f} s")
    console.say(f"next: {shlex.join(['engine', 'eval', str(made.bundle), str(data)])}")
