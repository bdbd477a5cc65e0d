"""`engine eval`: how good a bundle is on pictures whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from engine import config as configs
from engine.cli import console
from engine.cli.lazy import training
from engine.config import Backend, Line, Runtime, cascade_setting
from engine.contract import Precision
from engine.errors import UsageError
from engine.interest import Interest
from engine.pipeline.lines import thresholds
from engine.serving.select import choose_precision, open_cascade, read_and_open

_BATCH = 8
_COLUMNS = ("image_AUROC", "pixel_AUROC", "pixel_AUPRO", "f1")


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="The bundle to judge.")],
    data: Annotated[Path, typer.Argument(help="MVTec AD or BTAD layout, or a folder of good pictures.")],
    out: Annotated[Path | None, typer.Option(help="Write report.html, evaluation.json and pictures here.")] = None,
    backend: Annotated[Backend, typer.Option(help="What runs the model.")] = "auto",
    precision: Annotated[Precision, typer.Option(help="Which executable of the bundle.")] = "fp32",
    threads: Annotated[int, typer.Option(min=0, help="0: all cores.")] = 0,
    config: Annotated[Path | None, typer.Option(help="engine.toml: judge as its line does.")] = None,
    line: Annotated[str | None, typer.Option(help="Which line of it; may be left out where there is one.")] = None,
    camera: Annotated[str | None, typer.Option(help="The camera of the pictures, for its region of interest.")] = None,
    cascade: Annotated[str, typer.Option(help="Of ensembles: off, auto, or a bound such as 0.002.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Image and pixel AUROC, AUPRO, F1 and false alarms at the threshold, per type of defect, with 95 % intervals.

    Of an ensemble also of each member alone and of the cascade. With --config by the thresholds and within the region
    of interest of a line.
    """
    evaluating, good, progress = (
        training(name, "eval") for name in ("evaluation.evaluate", "dataset.good", "progress")
    )
    meant = _line(config, line, camera)
    runtime = Runtime(backend=backend, precision=precision, threads=threads, cascade=cascade_setting(cascade))
    dataset = good.read_dataset(data)
    loaded, predictor = read_and_open(bundle, runtime, _BATCH)
    calibration = loaded.calibration(choose_precision(runtime))
    interest = Interest(())
    if meant is not None:
        calibration, interest = thresholds(meant, calibration), Interest(meant.region)
    judge = evaluating.Judge(
        predictor.predict, loaded.sheet, calibration, lambda size: interest.view(camera or "", size)
    )
    comparison = None
    if loaded.members:
        jury, cascaded = training("evaluation.jury", "eval"), open_cascade(loaded, predictor, runtime, calibration)
        whole = jury.Jury.of(judge, loaded, choose_precision(runtime), cascaded)
        comparison = jury.compare(whole, dataset, progress.on_stderr())
        found, document = comparison.fused, comparison.document()
    else:
        found = evaluating.evaluate(judge, dataset, progress.on_stderr())
        document = found.document()
    title = f"{loaded.manifest.model} on {data.name}"
    if out is not None:
        _write(out, title, found, document, judge, dataset, comparison)
    if json:
        console.print_json(document)
    else:
        _print(title, document)
        if comparison is not None:
            _print_ensemble(document["ensemble"])
        if out is not None:
            console.say(f"report: {out / 'report.html'}")


def _line(config: Path | None, name: str | None, camera: str | None) -> Line | None:
    """The line of a configuration that is meant; raises UsageError where that is none or not the only one."""
    if config is None:
        if name is not None or camera is not None:
            raise UsageError("engine eval: --line and --camera need the engine.toml they are in; give --config FILE")
        return None
    lines = configs.load(config).line
    found = [line for line in lines if name in (None, line.name)]
    if len(found) != 1:
        raise UsageError(
            f"{config}: expected --line to name one of {', '.join(line.name for line in lines)}, got {name}"
        )
    return found[0]


def _write(out: Path, title: str, found: Any, document: Any, judge: Any, dataset: Any, comparison: Any) -> None:
    """The report, the numbers and a sheet per two dozen pictures."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(console.to_json(document))
    subtitle = f"{found.n_good} good and {found.n_defect} defective pictures from {dataset.path}"
    training("evaluation.summary", "eval").write_evaluation(
        out / "report.html", title, subtitle, found, judge, comparison
    )
    sights = training("evaluation.evaluate", "eval").look(judge, dataset.judged)
    training("evaluation.pictures", "eval").write_pictures(out / "pictures", sights, title)


def _print(title: str, document: dict[str, Any]) -> None:
    table = Table(title=title, title_justify="left")
    for name in ("defect", "n", *_COLUMNS, "rejected"):
        table.add_column(name, justify="left" if name == "defect" else "right")
    overall = document | {"n": document["n_defect"], "recall": None}
    for name, row in {**document["per_defect"], "all": overall}.items():
        table.add_row(name, str(row["n"]), *(_number(row[key]) for key in _COLUMNS), _percent(row["recall"]))
    console.out.print(table)
    rate = _percent(document["false_alarm_rate"])
    console.out.print(
        f"false alarms: {rate} of {document['n_good']} good pictures (target {document['target_fpr']:.1%})"
    )


def _print_ensemble(ensemble: dict[str, Any]) -> None:
    table = Table(title="members, fusion and cascade; 95 % intervals", title_justify="left")
    for name in ("detector", "image_AUROC", "recall", "false alarms", "pixel_AUROC", "ms"):
        table.add_column(name, justify="left" if name == "detector" else "right")
    alone = {f"{name} alone": row for name, row in ensemble["members"].items()}
    for name, row in {**alone, "fused": ensemble["fused"], "cascade": ensemble["cascade"]}.items():
        if row is not None:
            columns = (
                ("image_AUROC", _number),
                ("recall", _percent),
                ("false_alarm_rate", _percent),
                ("pixel_AUROC", _number),
            )
            cells = (_with_interval(row, key, write) for key, write in columns)
            table.add_row(name, *cells, f"{row['cost_ms']:.1f}")
    console.out.print(table)
    cascade = ensemble["cascade"]
    if cascade is None:
        console.say("cascade: none, it is off or lets no frame exit")
        return
    for kind in ("good", "defective"):
        exits, disagreement = _percent(cascade[kind]["exits"]), _percent(cascade[kind]["disagreement"])
        console.out.print(
            f"cascade: of {cascade[kind]['n']} {kind} pictures {exits} exit, {disagreement} though all members "
            f"together would not pass them"
        )


def _with_interval(row: dict[str, Any], key: str, write: Callable[[float | None], str]) -> str:
    interval = row["intervals"][key]
    return write(row[key]) if interval is None else f"{write(row[key])}\n{write(interval[0])}-{write(interval[1])}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
