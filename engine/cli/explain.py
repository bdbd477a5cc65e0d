"""`engine explain`: why a bundle scores one picture as it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from engine.cli import console
from engine.cli.lazy import training
from engine.config import Runtime
from engine.serving.select import read_and_open

_BATCH = 8


def explain(
    bundle: Annotated[Path, typer.Argument(help="The bundle that judged it.")],
    image: Annotated[Path, typer.Argument(help="The picture to explain.")],
    out: Annotated[
        Path | None, typer.Option(help="Write explanation.html, explanation.json, pictures and arrays here.")
    ] = None,
    baseline: Annotated[
        str, typer.Option(help="What it is compared with: blur (itself without details), black, or a picture's file.")
    ] = "blur",
    steps: Annotated[int, typer.Option(min=1, help="The most steps of integrated gradients.")] = 256,
    threads: Annotated[int, typer.Option(min=0, help="0: all cores.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Heat map, integrated gradients, Grad-CAM and occlusion of one picture; always of the fp32 model."""
    trainer, pictures, progress = (training(name, "explain") for name in ("explain", "explain.baseline", "progress"))
    picture = pictures.read(image, "IMAGE")
    loaded, predictor = read_and_open(bundle, Runtime(backend="onnx", precision="fp32", threads=threads), _BATCH)
    options = trainer.Options(baseline=baseline, max_steps=steps, threads=threads)
    manifest = loaded.manifest
    found = trainer.explain(loaded, predictor.predict, picture, options, progress.on_stderr())
    predictor.close()
    document = _document(image, manifest.model, manifest.method, found, baseline)
    if out is not None:
        subtitle = f"{manifest.model}, {found.decision.pred_score:.3f} with the threshold at 0.5"
        title = f"{image.name}: {_verdict(document)}"
        trainer.write_explanations(out, title, subtitle, {manifest.method: found}, baseline)
        (out / "explanation.json").write_text(console.to_json(document))
    if json:
        console.print_json(document)
    else:
        _print(document)
        if out is not None:
            console.out.print(f"page: {out / 'explanation.html'}", markup=False, highlight=False)


def _document(image: Path, model: str, method: str, found: Any, baseline: str) -> dict[str, Any]:
    """The verdict as a result carries it, then what each model rests on."""
    decision = found.decision
    return {
        "image": str(image),
        "model": model,
        "pred_score": decision.pred_score,
        "pred_label": decision.pred_label,
        "decision": decision.decision,
        "raw_score": found.raw_score,
        "regions": msgspec.to_builtins(decision.regions),
        "scores": {method: decision.pred_score},
        "baseline": baseline,
        "models": {method: found.document()},
    }


def _verdict(document: dict[str, Any]) -> str:
    return {"good": "passed", "review": "to be reviewed", "reject": "rejected"}[document["decision"]]


def _print(document: dict[str, Any]) -> None:
    title = f"{document['image']}: {_verdict(document)}, {document['pred_score']:.3f} by {document['model']}"
    table = Table(title=title, title_justify="left")
    for name in ("model", "score", "decided at", "gradients", "Grad-CAM", "agreement"):
        table.add_column(name)
    for name, row in document["models"].items():
        gradients, place, cam = row["integrated_gradients"], row["place"], row["grad_cam"]
        table.add_row(
            name,
            f"{row['pred_score']:.3f}",
            "whole picture" if place is None else f"{place[0]}, {place[1]} px",
            f"{'complete' if gradients['complete'] else 'incomplete'}, {gradients['steps']} steps",
            "none" if cam is None else f"{cam['channels']} features",
            f"{row['agreement']:.2f}",
        )
    console.out.print(table)
