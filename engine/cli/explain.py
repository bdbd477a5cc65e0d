"""`engine explain`: why a bundle scores one picture as it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from engine.api import load
from engine.bundle import Bundle
from engine.cli import console
from engine.cli.lazy import training
from engine.errors import UsageError
from engine.serving.select import open_local
from engine.types import U8, Result


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
    trainer, pictures = (training(name, "explain") for name in ("explain", "explain.baseline"))
    picture = pictures.read(image, "IMAGE")
    with load(bundle, backend="onnx", precision="fp32", threads=threads) as model:
        loaded = model.bundle
        if loaded.tiled:
            raise UsageError(
                f"{bundle}: is tiled, and only models of whole pictures are explained; train one without --tile, "
                f"or name a member of the ensemble that is not tiled"
            )
        (result,) = model.predict(picture)
    options = trainer.Options(baseline=baseline, max_steps=steps, threads=threads)
    found = _explained(loaded, picture, options)
    subject = trainer.Subject(image.name, picture, result, _shares(loaded, found), baseline)
    document = _document(image, subject, found)
    if out is not None:
        trainer.write_explanations(out, subject, found)
        (out / "explanation.json").write_text(console.to_json(document))
    if json:
        console.print_json(document)
    else:
        _print(document, subject.verdict)
        if out is not None:
            console.say(f"page: {out / 'explanation.html'}")


def _explained(bundle: Bundle, picture: U8, options: Any) -> dict[str, Any]:
    """The explanation of the bundle, or of each member of an ensemble, by name."""
    trainer, progress = (training(name, "explain") for name in ("explain", "progress"))
    shown = progress.on_stderr()
    found = {}
    for name, model in (bundle.members or {bundle.manifest.method: bundle}).items():
        predictor = open_local(model, "onnx", "fp32", options.threads)
        found[name] = trainer.explain(model, predictor.predict, picture, options, shown)
        predictor.close()
    return found


def _shares(bundle: Bundle, found: dict[str, Any]) -> dict[str, float]:
    """What each member adds to an ensemble's raw score; nothing where the bundle is one model."""
    if not bundle.members:
        return {}
    raw = {name: explanation.raw_score for name, explanation in found.items()}
    shares: dict[str, float] = training("explain", "explain").shares(bundle.ensemble("fp32"), raw)
    return shares


def _document(image: Path, subject: Any, found: dict[str, Any]) -> dict[str, Any]:
    """The verdict as a result carries it, then what each model rests on."""
    result: Result = subject.result
    return {
        "image": str(image),
        "model": result.model,
        "pred_score": result.pred_score,
        "pred_label": result.pred_label,
        "decision": result.decision,
        "raw_score": result.raw_score,
        "regions": msgspec.to_builtins(result.regions),
        "scores": dict(result.scores),
        "shares": dict(subject.shares),
        "baseline": subject.baseline,
        "models": {name: explanation.document() for name, explanation in found.items()},
    }


def _print(document: dict[str, Any], verdict: str) -> None:
    title = f"{document['image']}: {verdict}, {document['pred_score']:.3f} by {document['model']}"
    table = Table(title=title, title_justify="left")
    for name in ("model", "score", "share", "decided at", "gradients", "Grad-CAM", "agreement"):
        table.add_column(name)
    for name, row in document["models"].items():
        gradients, place, cam = row["integrated_gradients"], row["place"], row["grad_cam"]
        table.add_row(
            name,
            f"{row['pred_score']:.3f}",
            f"{document['shares'][name] / document['raw_score']:.0%}" if document["shares"] else "all",
            "whole picture" if place is None else f"{place[0]}, {place[1]} px",
            f"{'complete' if gradients['complete'] else 'incomplete'}, {gradients['steps']} steps",
            "none" if cam is None else f"{cam['channels']} features",
            f"{row['agreement']:.2f}",
        )
    console.out.print(table)
