"""`engine protocol`: a paper's evaluation protocol, which trains several models."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from engine.cli import console
from engine.cli.lazy import training
from engine.config import Runtime
from engine.serving.select import read_and_open

_BATCH = 8
_NUMBERS = ("image_AUROC", "pixel_AUROC", "pixel_AUPRO", "distance_variance", "mmd")


def protocol(
    name: Annotated[
        str, typer.Argument(help="ablation, disturbed, small, contaminated or one-class; see docs/training.md.")
    ],
    data: Annotated[Path, typer.Argument(help="A folder of good and defective pictures, or of labelled classes.")],
    method: Annotated[str, typer.Option(help="The detector: fyd, ssae, igd or droc.")] = "fyd",
    epochs: Annotated[int | None, typer.Option(min=0, help="Epochs of the learnt parts.")] = None,
    backbone: Annotated[str | None, typer.Option(help="As for `engine train`.")] = None,
    image_size: Annotated[int | None, typer.Option(min=32, help="Side of the network's input, px.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same rows.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="0: all cores.")] = 0,
    ratio: Annotated[
        float | None,
        typer.Option(min=0.001, max=0.5, help="contaminated: this share of bad pictures, not the paper's."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Train and judge every variant of a paper's table."""
    registry, base, progress, protocols = (
        training(module, "protocol") for module in ("registry", "base", "progress", "evaluation.protocol")
    )
    with tempfile.TemporaryDirectory(prefix="engine-protocol-") as scratch:
        options = base.TrainOptions(
            data=data,
            out=Path(scratch) / "bundle",
            epochs=epochs,
            backbone=backbone,
            image_size=image_size,
            seed=seed,
            threads=threads,
        )

        @contextmanager
        def open_judge(path: Path) -> Iterator[Any]:
            bundle, predictor = read_and_open(path, Runtime(backend="onnx", threads=threads), _BATCH)
            calibration = bundle.calibration("fp32")
            yield training("evaluation.evaluate", "protocol").Judge(predictor.predict, bundle.sheet, calibration)
            predictor.close()

        outcome = protocols.run(name, registry.get(method), options, open_judge, progress.on_stderr(), ratio)
    if json:
        console.print_json(outcome.document())
    else:
        _print(outcome.document())


def _print(document: dict[str, Any]) -> None:
    table = Table(title=f"{document['method']}: {document['protocol']}", title_justify="left")
    for name in ("table", "data", "copy", "variant", *_NUMBERS, "train s"):
        table.add_column(name)
    for row in document["rows"]:
        numbers = ["-" if row[name] is None else f"{row[name]:.3f}" for name in _NUMBERS]
        table.add_row(row["table"], row["data"], row["copy"], row["variant"], *numbers, f"{row['train_s']:.0f}")
    console.out.print(table)
