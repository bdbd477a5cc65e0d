"""How well does `engine train` with its defaults tell defective pictures from good ones, in fp32 and in int8?"""

from __future__ import annotations

import time

from benchmarks.harness import Answer, Context, DataSet, Document, data_sets, engine, trained

QUESTION = "accuracy"
PRECISIONS = ("fp32", "int8")
_METRICS = ("image_AUROC", "pixel_AUROC", "pixel_AUPRO", "f1", "false_alarm_rate", "n_good", "n_defect")


def answer(context: Context) -> Answer:
    """Train and evaluate on every data set, one after the other."""
    return Answer(QUESTION, {"data": [_measure(context, data) for data in data_sets(context)]})


def _measure(context: Context, data: DataSet) -> Document:
    bundle, report = trained(context, data)
    row: Document = {
        "name": data.name,
        "note": data.note,
        "method": report["method"],
        "version": report["version"],
        "train_s": round(report["train_s"], 1),
        "target_fpr": report["calibration"]["fp32"]["image_estimate"]["target_fpr"],
    }
    for precision in PRECISIONS:
        started = time.perf_counter()
        found = engine("eval", bundle, data.path, "--precision", precision, "--threads", context.threads)
        seconds = round(time.perf_counter() - started, 1)
        row[precision] = {name: found[name] for name in _METRICS} | {"eval_s": seconds}
    return row


def table(document: Document) -> str:
    """Markdown."""
    lines = [
        "| data | precision | image AUROC | pixel AUROC | AUPRO | F1 | false alarms (target) | train s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in document["data"]:
        for precision in PRECISIONS:
            found = row[precision]
            scores = " | ".join(_number(found[name]) for name in ("image_AUROC", "pixel_AUROC", "pixel_AUPRO", "f1"))
            alarms = f"{100 * found['false_alarm_rate']:.1f} % ({100 * row['target_fpr']:g} %) of {found['n_good']}"
            lines.append(f"| {row['name']} | {precision} | {scores} | {alarms} | {row['train_s']:.0f} |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
