"""How are members best fused, and what does the cascade cost? The rule is judged without a single test label.

The criterion is that of `settings`: the AUROC between good training pictures that no member learnt from, by tails that
other pictures shaped, and copies of them with a synthetic defect. SSAE holds a fifth out by itself; FYD, which would
learn from all and be calibrated by folds, is trained on the other four fifths here, because a model finds a copy of a
picture that it knows less surprising than a new one. Every trial is recorded. Two things are then shown of the default
and of each member: the image AUROC on the test set, and false alarms over re-splits of the held-out good pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import mean

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.harness import Answer, Context, DataSet, Document, data_sets, engine
from engine import bundle as bundles
from engine.bundle import Bundle
from engine.cascade import DEFAULT_BOUND, Pairs, exit_limit, outcome
from engine.contract import MANIFEST_NAME, Tail
from engine.fusion import fuse
from engine.serving.select import open_local
from engine.types import F64, U8
from trainers.calibration.holdout import held_out_rows
from trainers.calibration.tails import fit_tail
from trainers.calibration.thresholds import Split, level_of, resplit_check
from trainers.dataset.good import Pictures, blocks, check_training, read_dataset
from trainers.dataset.synthetic import DEFECTS, with_defect
from trainers.ensemble.joint import FOLDS
from trainers.progress import on_stderr

QUESTION = "fusion"
MEMBERS = ("fyd", "ssae")
EPOCHS = 12  # of ssae: a fifth of its default, so that all sets can be run in one go on two cores
TARGETS = (0.05, 0.01, 0.005)
RESPLITS = 40
_BOOTSTRAPS = 300
_SYNTHETIC = 100  # pictures at most
_RULES = ("weighted", "mean", "max")
_DEFAULT = "weighted"


@dataclass(frozen=True, slots=True)
class Scores:
    """Raw scores (M, n) of the members: good held-out pictures, synthetic defects, and the test set's two halves."""

    names: tuple[str, ...]
    good: F64
    synthetic: F64
    test_good: F64
    test_defective: F64

    def of(self, members: tuple[int, ...]) -> Scores:
        """Those of some members."""
        chosen = list(members)
        names = tuple(self.names[m] for m in chosen)
        arrays = (self.good, self.synthetic, self.test_good, self.test_defective)
        return Scores(names, *(each[chosen] for each in arrays))


def answer(context: Context) -> Answer:
    """Score every data set once; everything else is arithmetic on the scores."""
    found = {data.name: _scores(context, data) for data in data_sets(context)}
    names = next(iter(found.values())).names
    groups = [group for size in range(1, len(names) + 1) for group in combinations(range(len(names)), size)]
    trials = [trial for group in groups for trial in _trials({k: v.of(group) for k, v in found.items()})]
    document: Document = {
        "members": names,
        "epochs": EPOCHS,
        "defects": DEFECTS,
        "default": _DEFAULT,
        "trials": sorted(trials, key=lambda trial: -trial["mean"]),
        "data": [_row(name, scores) for name, scores in found.items()],
    }
    return Answer(QUESTION, document)


def _scores(context: Context, data: DataSet) -> Scores:
    """Of the members that `engine train` makes, or left in `work` by an earlier run."""
    progress = on_stderr()
    dataset = read_dataset(data.path)
    pictures = check_training(dataset).pictures
    rows = held_out_rows(len(pictures))
    members = [
        _member(context, f"{data.name}-fyd", _without(context, data, pictures, rows), "--method", "fyd"),
        _member(context, f"{data.name}-ssae", data.path, "--method", "ssae", "--epochs", EPOCHS),
    ]
    chosen = rows[np.linspace(0, len(rows) - 1, min(_SYNTHETIC, len(rows))).round().astype(int)]
    halves = {bad: [item for item in dataset.test if (item.defect is not None) is bad] for bad in (False, True)}
    with ExitStack() as stack:
        predictors = [open_local(member, "onnx", "fp32", context.threads) for member in members]
        for predictor in predictors:
            stack.callback(predictor.close)

        def judge(what: str, images: Iterator[U8], n: int) -> F64:
            scores = np.zeros((len(members), n))
            with progress.task(f"{data.name}: {what}", n) as task:
                for i, image in enumerate(images):
                    for m, (member, predictor) in enumerate(zip(members, predictors, strict=True)):
                        scores[m, i] = predictor.predict(member.sheet.fit(image)[None]).scores[0]
                    task.advance()
            return scores

        return Scores(
            MEMBERS,
            judge("held out", iter(pictures.subset(rows)), len(rows)),
            judge("synthetic", _defective(pictures.subset(chosen)), len(chosen) * len(DEFECTS)),
            judge("good", iter(Pictures(halves[False])), len(halves[False])),
            judge("defective", iter(Pictures(halves[True])), len(halves[True])),
        )


def _member(context: Context, name: str, data: Path, *options: object) -> Bundle:
    """The bundle of that name in `work`, trained now where there is none."""
    path = context.work / "bundles" / name
    if not (path / MANIFEST_NAME).is_file():
        engine("train", data, "--out", path, "--threads", context.threads, *options)
    return bundles.read(path)


def _without(context: Context, data: DataSet, pictures: Pictures, rows: npt.NDArray[np.intp]) -> Path:
    """A folder of links to the training pictures but some."""
    folder = context.folder(f"{data.name}-four-fifths")
    for row in np.setdiff1d(np.arange(len(pictures)), rows):
        link = folder / f"{row:05d}{pictures.items[row].path.suffix}"
        link.unlink(missing_ok=True)
        link.symlink_to(pictures.items[row].path.resolve())
    return folder


def _defective(pictures: Pictures) -> Iterator[U8]:
    generator = torch.Generator().manual_seed(0)
    for i in range(len(pictures)):
        for kind in DEFECTS:
            yield with_defect(pictures[i][None], kind, generator)[0]


def _trials(found: dict[str, Scores]) -> Iterator[Document]:
    """Every rule for one group of members, by the criterion alone."""
    names = next(iter(found.values())).names
    rules = _RULES if len(names) > 1 else ("alone",)
    judged = {rule: {name: _judged(scores, rule) for name, scores in found.items()} for rule in rules}
    for rule in rules:
        by_data = {name: _auroc(*pair) for name, pair in judged[rule].items()}
        trial: Document = {
            "members": names,
            "rule": rule,
            "AUROC": {name: round(value, 4) for name, value in by_data.items()},
            "mean": round(mean(by_data.values()), 4),
        }
        if rule in _RULES and rule != _DEFAULT:
            trial["above_default"] = _difference(judged[rule], judged[_DEFAULT])
        yield trial


Judged = tuple[F64, F64]  # fused scores of good pictures and of synthetic defects


def _judged(scores: Scores, rule: str) -> Judged:
    weights = _weights(scores, rule)
    tails = [fit_tail(each) for each in scores.good]
    return held_out(scores.good, weights, rule), combined(tails, scores.synthetic, weights, rule)


def _difference(one: dict[str, Judged], other: dict[str, Judged]) -> tuple[float, float]:
    """95 % bootstrap interval, over pictures, of the difference of the criterion's mean over the data sets."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(_BOOTSTRAPS):
        differences = []
        for name, (good, bad) in one.items():
            rows, columns = (random.integers(len(each), size=len(each)) for each in (good, bad))
            drawn = _auroc(good[rows], bad[columns]), _auroc(other[name][0][rows], other[name][1][columns])
            differences.append(drawn[0] - drawn[1])
        found.append(mean(differences))
    low, high = np.quantile(found, [0.025, 0.975])
    return round(float(low), 4), round(float(high), 4)


def _weights(scores: Scores, rule: str) -> tuple[float, ...]:
    """`weighted`: by how far each member's own AUROC on the synthetic defects is above chance; others: equal."""
    if rule != "weighted":
        return (1.0,) * len(scores.names)
    alone = [_auroc(good, bad) for good, bad in zip(scores.good, scores.synthetic, strict=True)]
    return tuple(max(value - 0.5, 0.01) for value in alone)


def combined(tails: list[Tail], raw: F64, weights: tuple[float, ...], rule: str) -> F64:
    """(M, n) raw scores -> (n,) fused ones."""
    surprises = [tail.of(each) for tail, each in zip(tails, raw, strict=True)]
    return fuse(surprises, weights, "max" if rule == "max" else "mean")


def held_out(good: F64, weights: tuple[float, ...], rule: str) -> F64:
    """(n,) fused scores of good pictures, each by the tails of the other blocks."""
    parts = blocks(good.shape[1], FOLDS)
    rest = [np.setdiff1d(np.arange(good.shape[1]), part) for part in parts]
    tails = [[fit_tail(each[others]) for each in good] for others in rest]
    return np.concatenate([combined(by, good[:, part], weights, rule) for by, part in zip(tails, parts, strict=True)])


def _row(name: str, scores: Scores) -> Document:
    """The default on the test set beside its members, its false alarms, and the cascade."""
    weights = _weights(scores, _DEFAULT)
    tails = [fit_tail(each) for each in scores.good]
    members = dict(zip(scores.names, map(_auroc, scores.test_good, scores.test_defective), strict=True))
    return {
        "name": name,
        "n_joint": scores.good.shape[1],
        "members": {member: round(value, 4) for member, value in members.items()},
        "fused": {rule: round(_on_test(scores, tails, rule), 4) for rule in _RULES},
        "false_alarms": [_false_alarms(scores.good, weights, target) for target in TARGETS],
        "cascade": _cascade(scores, tails, weights),
    }


def _on_test(scores: Scores, tails: list[Tail], rule: str) -> float:
    """Image AUROC on the test set: shown for every rule, decides nothing."""
    weights = _weights(scores, rule)
    good, bad = (combined(tails, raw, weights, rule) for raw in (scores.test_good, scores.test_defective))
    return _auroc(good, bad)


def _false_alarms(good: F64, weights: tuple[float, ...], target: float) -> Document:
    """Re-splits of the held-out pictures: four fifths fit tails and set the threshold, the others are judged."""
    n = good.shape[1]
    splits = []
    for seed in range(RESPLITS):
        order = np.random.default_rng(seed).permutation(n)
        fitting, judged = order[: 4 * n // 5], order[4 * n // 5 :]
        level, _ = level_of(held_out(good[:, fitting], weights, _DEFAULT), target, FOLDS)
        tails = [fit_tail(each[fitting]) for each in good]
        alarms = combined(tails, good[:, judged], weights, _DEFAULT) > level
        splits.append(Split(len(fitting), len(judged), int(alarms.sum())))
    check = resplit_check(splits, target)
    return {"target": target, "rate": check.rate, "interval": check.interval, "n": check.n_test, "held": check.passed}


def _cascade(scores: Scores, tails: list[Tail], weights: tuple[float, ...]) -> Document:
    """At the default bound, the first member first: who exits, and who would have been judged otherwise."""
    fused = held_out(scores.good, weights, _DEFAULT)
    first = held_out(scores.good[:1], (1.0,), _DEFAULT)
    level, _ = level_of(fused, 0.01, FOLDS)
    limit = exit_limit(Pairs(first, fused), level, DEFAULT_BOUND)
    kinds = {"test_good": scores.test_good, "synthetic": scores.synthetic, "test_defective": scores.test_defective}
    found = {
        kind: outcome(Pairs(tails[0].of(raw[0]), combined(tails, raw, weights, _DEFAULT)), limit, level)
        for kind, raw in kinds.items()
    }
    shares = {kind: {"n": o.n, "exits": o.exits, "disagreement": o.disagreement} for kind, o in found.items()}
    return {"how": limit.how, "frames": limit.n, "bound": limit.bound, **shares}


def _auroc(good: F64, bad: F64) -> float:
    truth = np.concatenate([np.zeros(len(good)), np.ones(len(bad))])
    return float(roc_auc_score(truth, np.concatenate([good, bad])))


def table(document: Document) -> str:
    """Markdown: the trials by the criterion, then the default on the test sets."""
    names = list(document["trials"][0]["AUROC"])
    lines = [f"| members | rule | mean | against the default | {' | '.join(names)} |", "|---" * (4 + len(names)) + "|"]
    for trial in document["trials"]:
        values = " | ".join(f"{trial['AUROC'][name]:.3f}" for name in names)
        low, high = trial.get("above_default", (None, None))
        against = "" if low is None else f"{low:+.3f} to {high:+.3f}"
        rule = f"{trial['rule']}{' (default)' if trial['rule'] == document['default'] else ''}"
        lines.append(f"| {' + '.join(trial['members'])} | {rule} | {trial['mean']:.4f} | {against} | {values} |")
    heads = ("data", *document["members"], *_RULES, f"false alarms at {_targets(document)}", "held out")
    lines += ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in document["data"]:
        alone = " | ".join(f"{row['members'][name]:.3f}" for name in document["members"])
        rates = ", ".join(f"{100 * f['rate']:.1f} %{'' if f['held'] else ' (!)'}" for f in row["false_alarms"])
        fused = " | ".join(f"{row['fused'][rule]:.3f}" for rule in _RULES)
        lines.append(f"| {row['name']} | {alone} | {fused} | {rates} | {row['n_joint']} |")
    lines += ["", *_cascade_table(document)]
    return "\n".join(lines)


def _cascade_table(document: Document) -> Iterator[str]:
    yield "| cascade at 0.2 % | rests on | good that exit | disagree | synthetic | disagree | defective | disagree |"
    yield "|---" * 8 + "|"
    for row in document["data"]:
        found = row["cascade"]
        kinds = [found[kind] for kind in ("test_good", "synthetic", "test_defective")]
        shares = " | ".join(f"{100 * k['exits']:.0f} % of {k['n']} | {100 * k['disagreement']:.1f} %" for k in kinds)
        yield f"| {row['name']} | {found['frames']}, {found['how']} | {shares} |"


def _targets(document: Document) -> str:
    return ", ".join(f"{100 * each['target']:g} %" for each in document["data"][0]["false_alarms"])
