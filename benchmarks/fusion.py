"""How are members best fused, and what does the cascade cost? The rule is judged without a single test label.

The criterion is the AUROC between good training pictures, each by models and tails that have not seen it, and copies of
them with a synthetic defect (`trainers.dataset.synthetic`), the mean over eight kinds of defect. Every trial is
recorded. Then of the default and of each member: the image AUROC on the test set; the same of its defective pictures
against the held-out training pictures, because good pictures of the test set may look otherwise than those of the
training, which a member may see though it sees no defect (`shift`); false alarms and the cascade's disagreement over
re-splits of the good pictures (`benchmarks.resplits`); and the cascade's speed, paired with the full ensemble's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from statistics import mean

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.cascade_speed import cascade_speed
from benchmarks.harness import Answer, Context, DataSet, Document, bundle_of, data_sets, engine
from benchmarks.resplits import cross_fitted, fit_tails, fused, levels, limit_of, pairs_of, resplit
from engine import bundle as bundles
from engine.appearance import NAMES, appearance
from engine.bundle import Bundle
from engine.cascade import DEFECT_SHARE, Mixture, outcome
from engine.contract import MANIFEST_NAME
from engine.images import resize
from engine.serving.select import open_local
from engine.types import F64
from trainers.calibration import record
from trainers.dataset.good import Item, Pictures, check_training, read_dataset
from trainers.dataset.synthetic import KINDS
from trainers.ensemble.copies import Served, evenly, judged
from trainers.ensemble.joint import join
from trainers.ensemble.weights import weights as worth
from trainers.progress import Progress, on_stderr

QUESTION = "fusion"
MEMBERS = ("fyd", "ssae")
TARGETS = (0.05, 0.01, 0.005)
_CASCADE_TARGET = 0.01
_BOOTSTRAPS = 300
_SYNTHETIC = 100  # pictures at most
_RULES = ("weighted", "mean", "max")
_DEFAULT = "weighted"
_AGAINST = ("test", "against_held_out")
_SIDE_PX = 128  # at which brightness is compared


@dataclass(frozen=True, slots=True)
class Scores:
    """Raw scores of M members, the cheapest first: held-out good pictures (M, n), copies of k of them with d kinds of
    defect (M, k, d), and the test set's two halves (M, ...).

    `shift` is, of brightness and of each member's score, the AUROC of good test pictures over the held-out ones.
    """

    names: tuple[str, ...]
    good: F64
    copies: F64
    test_good: F64
    test_defective: F64
    shift: dict[str, float]

    def of(self, members: tuple[int, ...]) -> Scores:
        """Those of some members."""
        rows = list(members)
        return replace(
            self,
            names=tuple(self.names[m] for m in members),
            good=self.good[rows],
            copies=self.copies[rows],
            test_good=self.test_good[rows],
            test_defective=self.test_defective[rows],
        )

    @property
    def defects(self) -> F64:
        """The copies, (M, k * d)."""
        return self.copies.reshape(len(self.names), -1)

    def mixture(self, rule: str) -> Mixture:
        """How a rule fuses the members; `weighted`: by how well each finds the synthetic defects."""
        weights = worth(self.good, self.copies) if rule == "weighted" else (1.0,) * len(self.names)
        return Mixture(weights, "max" if rule == "max" else "mean")


def answer(context: Context) -> Answer:
    """Score every data set once; most else is arithmetic on the scores."""
    sets = data_sets(context)
    found = {data.name: _scores(context, data) for data in sets}
    groups = [group for size in range(1, len(MEMBERS) + 1) for group in combinations(range(len(MEMBERS)), size)]
    trials = [trial for group in groups for trial in _trials({k: v.of(group) for k, v in found.items()})]
    document: Document = {
        "members": MEMBERS,
        "defects": KINDS,
        "default": _DEFAULT,
        "trials": sorted(trials, key=lambda trial: -trial["mean"]),
        "data": [_row(context, data, found[data.name]) for data in sets],
    }
    return Answer(QUESTION, document)


def _members(context: Context, data: DataSet) -> list[Bundle]:
    """As `engine train` makes them, or left in `work` by an earlier run."""
    ssae = context.work / "bundles" / f"{data.name}-ssae"
    if not (ssae / MANIFEST_NAME).is_file():
        engine("train", data.path, "--out", ssae, "--method", "ssae", "--threads", context.threads)
    return [bundles.read(bundle_of(context, data)), bundles.read(ssae)]


def _scores(context: Context, data: DataSet) -> Scores:
    progress = on_stderr()
    training = check_training(read_dataset(data.path))
    members = _members(context, data)
    joint = join(MEMBERS, [record.read(member, "fp32") for member in members])
    rows = training.rows_of(joint.contents)
    halves = _halves(data)
    with ExitStack() as stack:
        served = []
        for member in members:
            predictor = open_local(member, "onnx", "fp32", context.threads)
            stack.callback(predictor.close)
            served.append(Served(member, "fp32", predictor.predict))
        copies = judged(served, training, evenly(rows, _SYNTHETIC), context.threads, progress)
        good, defective = (_judge(served, halves[bad], progress) for bad in (False, True))
    shift = {"brightness": _auroc(_brightness(training.pictures.subset(rows)), _brightness(Pictures(halves[False])))}
    shift |= {name: _auroc(*pair) for name, *pair in zip(MEMBERS, joint.scores, good, strict=True)}
    return Scores(MEMBERS, joint.scores, copies, good, defective, shift)


def _judge(members: list[Served], items: list[Item], progress: Progress) -> F64:
    """(M, n) raw scores of pictures."""
    pictures = Pictures(items)
    scores = np.zeros((len(members), len(items)))
    with progress.task("test pictures", len(items)) as task:
        for i in range(len(items)):
            image = pictures[i]
            for m, member in enumerate(members):
                scores[m, i] = member.predict(member.bundle.sheet.fit(image)[None]).scores[0]
            task.advance()
    return scores


def _brightness(pictures: Pictures) -> F64:
    images = (resize(pictures[i], _SIDE_PX, _SIDE_PX) for i in range(len(pictures)))
    return np.array([appearance(image)[NAMES.index("brightness")] for image in images])


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
    mixture = scores.mixture(rule)
    return cross_fitted(scores.good, mixture).fused, fused(fit_tails(scores.good), scores.defects, mixture)


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


def _row(context: Context, data: DataSet, scores: Scores) -> Document:
    """The default beside its members on the test set, its false alarms and the cascade, the first member first."""
    rules = {rule: _fused_pairs(scores, rule) for rule in _RULES}
    cascade = _cascade(scores)
    everything = np.concatenate([scores.good, scores.test_good], axis=1)
    found = resplit(everything, scores.defects, scores.mixture(_DEFAULT), TARGETS, _CASCADE_TARGET)
    return {
        "name": data.name,
        "n_joint": scores.good.shape[1],
        "weights": dict(zip(scores.names, scores.mixture(_DEFAULT).weights, strict=True)),
        "members": _on_test(dict(zip(scores.names, _by_member(scores), strict=True))),
        "fused": _on_test(rules),
        "shift": {what: round(value, 4) for what, value in scores.shift.items()},
        "resplits": asdict(found),
        "cascade": cascade | _served(context, data, cascade),
    }


Halves = tuple[F64, F64, F64]  # scores of held-out pictures, and of the test set's good and defective ones


def _by_member(scores: Scores) -> list[Halves]:
    return list(zip(scores.good, scores.test_good, scores.test_defective, strict=True))


def _fused_pairs(scores: Scores, rule: str) -> Halves:
    mixture, tails = scores.mixture(rule), fit_tails(scores.good)
    good, bad = (fused(tails, raw, mixture) for raw in (scores.test_good, scores.test_defective))
    return cross_fitted(scores.good, mixture).fused, good, bad


def _on_test(found: dict[str, Halves]) -> Document:
    """Image AUROC of the test set, and of its defective pictures against held-out ones: decides nothing."""
    return {
        name: {"test": round(_auroc(good, bad), 4), "against_held_out": round(_auroc(held_out, bad), 4)}
        for name, (held_out, good, bad) in found.items()
    }


def _cascade(scores: Scores) -> Document:
    """At the default bound: who exits, and who would have been judged otherwise."""
    mixture, tails = scores.mixture(_DEFAULT), fit_tails(scores.good)
    (level,) = levels(scores.good, mixture, (_CASCADE_TARGET,))
    limit = limit_of(scores.good, scores.defects, mixture, level)
    kinds = {"test_good": scores.test_good, "synthetic": scores.defects, "test_defective": scores.test_defective}
    found = {kind: outcome(pairs_of(tails, raw, mixture), limit, level) for kind, raw in kinds.items()}
    shares = {kind: asdict(each) for kind, each in found.items()}
    return {"how": limit.how, "frames": limit.n, "bound": limit.bound, **shares}


def _served(context: Context, data: DataSet, cascade: Document) -> Document:
    """The members fused by `engine fuse`: what the cascade costs on the test set's frames, and its speed."""
    path = context.work / "bundles" / f"{data.name}-fused"
    members = [member.path for member in _members(context, data)]
    engine("fuse", *members, "--data", data.path, "--out", path, "--threads", context.threads)
    bundle = bundles.read(path)
    halves = _halves(data)
    costs = {member.name: member.cost_ms for member in bundle.ensemble("fp32").members}
    shares = (1 - DEFECT_SHARE, "test_good"), (DEFECT_SHARE, "test_defective")
    escalated = sum(share * (1 - cascade[kind]["exits"]) for share, kind in shares)
    first = min(costs.values())
    return {
        "cost_ms": costs,
        "mean_cost": 1 + escalated * (sum(costs.values()) - first) / first,
        "reported": {key: value for key, value in bundle.manifest.report.items() if key.endswith("cost")},
        "speed": cascade_speed(bundle, halves[False], halves[True], context.threads),
    }


def _halves(data: DataSet) -> dict[bool, list[Item]]:
    """The test set's good pictures (False) and its defective ones."""
    test = read_dataset(data.path).test
    return {bad: [item for item in test if (item.defect is not None) is bad] for bad in (False, True)}


def _auroc(good: F64, bad: F64) -> float:
    truth = np.concatenate([np.zeros(len(good)), np.ones(len(bad))])
    return float(roc_auc_score(truth, np.concatenate([good, bad])))


def table(document: Document) -> str:
    """Markdown: the trials by the criterion, then the default on the test sets, its false alarms and its cascade."""
    names = list(document["trials"][0]["AUROC"])
    lines = [f"| members | rule | mean | against the default | {' | '.join(names)} |", "|---" * (4 + len(names)) + "|"]
    for trial in document["trials"]:
        values = " | ".join(f"{trial['AUROC'][name]:.3f}" for name in names)
        low, high = trial.get("above_default", (None, None))
        against = "" if low is None else f"{low:+.3f} to {high:+.3f}"
        rule = f"{trial['rule']}{' (default)' if trial['rule'] == document['default'] else ''}"
        lines.append(f"| {' + '.join(trial['members'])} | {rule} | {trial['mean']:.4f} | {against} | {values} |")
    for part in (_accuracy_table, _false_alarms_table, _cascade_table):
        lines += ["", *part(document)]
    return "\n".join(lines)


def _accuracy_table(document: Document) -> Iterator[str]:
    heads = [*document["members"], *_RULES]
    shifts = ["brightness", *document["members"]]
    yield f"| data | {' | '.join(heads)} | good test over held-out pictures: {', '.join(shifts)} |"
    yield "|---" * (2 + len(heads)) + "|"
    for row in document["data"]:
        each = row["members"] | row["fused"]
        shift = ", ".join(f"{row['shift'][what]:.2f}" for what in shifts)
        values = " | ".join(f"{each[head]['test']:.3f} ({each[head]['against_held_out']:.3f})" for head in heads)
        yield f"| {row['name']} | {values} | {shift} |"
    means = [[mean((r["members"] | r["fused"])[h][k] for r in document["data"]) for h in heads] for k in _AGAINST]
    yield f"| mean | {' | '.join(f'{a:.3f} ({b:.3f})' for a, b in zip(*means, strict=True))} | |"


def _false_alarms_table(document: Document) -> Iterator[str]:
    targets = document["data"][0]["resplits"]["targets"]
    heads = [f"false alarms at {100 * target:g} %" for target in targets]
    yield f"| data | good pictures | judged | {' | '.join(heads)} | cascade: exit | disagree |"
    yield "|---" * (5 + len(heads)) + "|"
    for row in document["data"]:
        found = row["resplits"]
        rates = " | ".join(map(_rate, found["rates"], found["intervals"]))
        shares = f"{100 * found['exits']:.0f} % | {100 * found['disagreement']:.2f} %"
        yield f"| {row['name']} | {found['n']} | {found['judged']} | {rates} | {shares} |"


def _rate(rate: float, interval: tuple[float, float]) -> str:
    low, high = interval
    outside = "" if low <= rate <= high else " (!)"
    return f"{100 * rate:.1f} %{outside} in {100 * low:.1f} to {100 * high:.1f} %"


def _cascade_table(document: Document) -> Iterator[str]:
    yield "| cascade | rests on | exit: good | synthetic | defective | lost | mean cost | full | times as fast |"
    yield "|---" * 9 + "|"
    for row in document["data"]:
        found = row["cascade"]
        kinds = [found[kind] for kind in ("test_good", "synthetic", "test_defective")]
        shares = " | ".join(f"{100 * kind['exits']:.0f} % of {kind['n']}" for kind in kinds)
        lost = round(found["test_defective"]["disagreement"] * found["test_defective"]["n"])
        full = sum(found["cost_ms"].values()) / min(found["cost_ms"].values())
        speed = found["speed"]["speedup"]
        yield (
            f"| {row['name']} | {found['frames']}, {found['how']} | {shares} | {lost} | {found['mean_cost']:.2f} "
            f"| {full:.2f} | {speed:.1f} |"
        )
