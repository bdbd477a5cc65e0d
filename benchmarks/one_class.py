"""How well do DROC and IGD tell one class of pictures from all others, when they learn from that class alone?

    python -m benchmarks.one_class --data FOLDER [--variant NAME...] [--good CLASS...] [--seed N...]

The papers' CIFAR-10 protocol on a small budget: networks of a quarter of the width, a few passes instead of hundreds or
thousands. All training pictures of a class are learnt from (and fitted to), all test pictures are judged, with the
network of the last pass. The results grow: a run that they have is not made again, each new one is written at once.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks.harness import RESULTS, Answer, Document
from benchmarks.spread import spread
from engine.bench.environment import stamp
from engine.types import F32
from trainers import backbones, droc, igd
from trainers.base import EncoderKind
from trainers.dataset import resized
from trainers.dataset.labelled import Labelled, read_labelled
from trainers.dataset.pixels import in_unit_range
from trainers.dataset.resized import Resized
from trainers.droc import saved
from trainers.droc.detector import Detector
from trainers.droc.fit import fit
from trainers.droc.learn import DrocLearner
from trainers.droc.pictures import patch_features
from trainers.droc.pretext import Representation
from trainers.droc.variants import CLASSIFIERS, TASKS
from trainers.igd.decoder import Critic
from trainers.igd.encoder import FEATURES, BackboneTrunk, ResidualTrunk, Trunk
from trainers.igd.learn import DescriptorLearner, Plan, trunk_features
from trainers.igd.model import Descriptor
from trainers.learning.passes import Learner, seeded, torch_threads
from trainers.progress import on_stderr

QUESTION = "one_class"
SIDE_PX = 32
_PADDING_FREE = droc.Settings(side_px=SIDE_PX, network="padding-free", width="narrow", epochs=6)
_RESNET = replace(_PADDING_FREE, network="resnet18", epochs=2)
_IGD = igd.Settings(side_px=SIDE_PX, width="narrow", epochs=4)
_ENCODERS: Sequence[EncoderKind] = ("imagenet", "scratch")
VARIANTS: Mapping[str, droc.Settings | igd.Settings] = {
    **{f"droc, {task}": replace(_PADDING_FREE, pretext=task) for task in TASKS},
    **{f"droc, {task}, resnet18": replace(_RESNET, pretext=task) for task in TASKS},
    **{f"igd, {encoder}": replace(_IGD, encoder=encoder) for encoder in _ENCODERS},
}
_ROTATION = "rotation-softmax"
_COLUMNS = {"droc": (*CLASSIFIERS, _ROTATION, "MMD"), "igd": ("score (14)", "reconstruction (12)", "Gaussian (8)")}
_CURVE = 6  # points, where there are as many passes
_BATCH = 500
Bad = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Run:
    """One training: a variant on the class `good` from a seed, in so many passes."""

    variant: str
    good: str
    epochs: int
    seed: int

    @property
    def settings(self) -> droc.Settings | igd.Settings:
        """The variant's with these passes."""
        return replace(VARIANTS[self.variant], epochs=self.epochs)


class Rows:
    """The results so far, a row for a variant, class and number of passes, in the file that shows them."""

    def __init__(self, data: str, out: Path) -> None:
        self._data, self._out = data, out
        path = out / f"{QUESTION}.json"
        self.rows: list[Document] = json.loads(path.read_text())["rows"] if path.is_file() else []

    def of(self, run: Run) -> Document:
        """The row of a run, new where there is none."""
        for row in self.rows:
            if (row["variant"], row["good"], row["epochs"]) == (run.variant, run.good, run.epochs):
                return row
        self.rows.append({"variant": run.variant, "good": run.good, "epochs": run.epochs, "runs": []})
        self.rows.sort(key=lambda row: (list(VARIANTS).index(row["variant"]), row["good"], row["epochs"]))
        return self.of(run)

    def has(self, run: Run) -> bool:
        """Whether it was made already."""
        return any(made["seed"] == run.seed for made in self.of(run)["runs"])

    def add(self, run: Run, found: Document) -> Path:
        """Another run; returns the file, written anew."""
        row = self.of(run)
        row["runs"] = sorted([*row["runs"], {"seed": run.seed} | found], key=lambda made: int(made["seed"]))
        return Answer(QUESTION, {"data": self._data, "rows": [row for row in self.rows if row["runs"]]}).write(
            self._out
        )


@dataclass(frozen=True, slots=True)
class Split:
    """The training pictures of one class, all test pictures, and which of these (n,) are of others."""

    training: Resized
    test: Resized
    bad: Bad

    def auroc(self, scores: Callable[[Tensor], Tensor]) -> list[float]:
        """Of each of the k scores (m, k) that a function gives (m, H, W, 3) uint8 test pictures."""
        parts = np.array_split(np.arange(len(self.test)), -(-len(self.test) // _BATCH))
        with torch.no_grad():
            found: list[F32] = [scores(torch.from_numpy(self.test.take(part))).cpu().numpy() for part in parts]
        return [round(float(roc_auc_score(self.bad, column)), 4) for column in np.concatenate(found).T]


def measure(data: Labelled, test: Resized, settings: droc.Settings | igd.Settings, run: Run) -> Document:
    """Learn from a class and judge; `curve` is the AUROC after some of the passes (of DROC's by GDE)."""
    started, good = time.process_time(), data.classes.index(run.good)
    rows = np.flatnonzero(data.train.labels == good)
    training = resized.read([data.train.images[row] for row in rows.tolist()], SIDE_PX, on_stderr())
    split = Split(training, test, data.test.labels != good)
    found = _droc(split, settings, run.seed) if isinstance(settings, droc.Settings) else _igd(split, settings, run.seed)
    return found | {"cpu_s": round(time.process_time() - started, 1), "environment": stamp()}


def _droc(split: Split, settings: droc.Settings, seed: int) -> Document:
    """Stage one, then every classifier."""
    with seeded(seed):
        model = saved.make_representation(settings, saved.make_trunk(settings))
    learner = DrocLearner(model, settings, seed, on_stderr().say)

    def judged(kind: str) -> float:
        detector = _detector(learner.finish(), kind, split.training, settings, seed)
        return split.auroc(lambda images: detector(images)[:, 0])[0]

    cost = _passes(learner, split.training, lambda: judged("gde"))
    kinds = (*CLASSIFIERS, _ROTATION) if settings.pretext == "rotation" else CLASSIFIERS
    uniformity = [round(value, 4) for value in learner.uniformity]
    return {"AUROC": {kind: judged(kind) for kind in kinds}, "mmd": uniformity, **cost}


def _detector(model: Representation, kind: str, training: Resized, settings: droc.Settings, seed: int) -> Detector:
    if kind == _ROTATION:
        return saved.detector(model, None, settings)
    features = patch_features(model.trunk, training, len(training), seed, on_stderr())
    return saved.detector(model, fit(kind, features), settings)


def _igd(split: Split, settings: igd.Settings, seed: int) -> Document:
    """The global model alone, as the method has it for pictures of one patch: its score and the terms of it."""
    learner = _igd_learner(split.training, settings, seed)
    terms: list[float] = []

    def judged() -> float:
        model = learner.model.eval()

        def scores(images: Tensor) -> Tensor:
            seen = model(in_unit_range(images).to(learner.device))
            return torch.stack([seen.reconstruction + seen.gaussian, seen.reconstruction, seen.gaussian], dim=1)

        terms[:] = split.auroc(scores)
        return terms[0]

    cost = _passes(learner, split.training, judged)
    return {"AUROC": dict(zip(_COLUMNS["igd"], terms, strict=True)), **cost}


def _igd_learner(training: Resized, settings: igd.Settings, seed: int) -> DescriptorLearner:
    share = settings.channel_share
    with seeded(seed):
        trunk: Trunk = ResidualTrunk(SIDE_PX, share, FEATURES)
        if settings.encoder == "imagenet":
            trunk = BackboneTrunk(backbones.load(settings.backbone, SIDE_PX), SIDE_PX)
        model = Descriptor(trunk, SIDE_PX, share, settings.objective)
        critic = Critic(SIDE_PX, share)
    features = trunk_features(trunk, training) if settings.encoder == "imagenet" else None
    plan = Plan(settings.epochs, settings.batch, settings.e_step_period)
    return DescriptorLearner(model, critic, features, settings, plan, seed)


def _passes(learner: Learner, training: Resized, judged: Callable[[], float]) -> Document:
    """All passes of a learner: the AUROC after some of them, and the CPU time that they took without judging."""
    curve, learnt_s = {}, 0.0
    for number in range(learner.epochs):
        before = time.process_time()
        for _ in learner.epoch(training, number):
            pass
        learnt_s += time.process_time() - before
        if (number + 1) % max(1, learner.epochs // _CURVE) == 0 or number + 1 == learner.epochs:
            curve[str(number + 1)] = judged()
    return {"curve": curve, "learnt_cpu_s": round(learnt_s, 1)}


def table(document: Document) -> str:
    """Markdown: AUROC, mean and standard deviation over the seeds that were run, by class and over classes; curves."""
    rows = document["rows"]
    parts = []
    for method, columns in _COLUMNS.items():
        mine = [row for row in rows if row["variant"].startswith(method)]
        if mine:
            parts.append(_scores(mine, columns))
    return "\n\n".join([*parts, _curves(rows)])


def _scores(rows: Sequence[Document], columns: Sequence[str]) -> str:
    lines = [
        f"| variant | good class | passes | seeds | {' | '.join(columns)} | learning, CPU s |",
        "|---" * (len(columns) + 5) + "|",
    ]
    for row in [*rows, *_over_classes(rows)]:
        runs = row["runs"]
        found = " | ".join(spread([_value(run, name) for run in runs if _has(run, name)]) for name in columns)
        seconds = np.median([run["learnt_cpu_s"] for run in runs])
        lines.append(f"| {row['variant']} | {row['good']} | {row['epochs']} | {len(runs)} | {found} | {seconds:.0f} |")
    return "\n".join(lines)


def _over_classes(rows: Sequence[Document]) -> Iterator[Document]:
    """For each variant with several classes the mean over them, seed by seed."""
    for variant, epochs in dict.fromkeys((row["variant"], row["epochs"]) for row in rows):
        same = [row["runs"] for row in rows if (row["variant"], row["epochs"]) == (variant, epochs)]
        seeds = sorted(set.intersection(*({run["seed"] for run in runs} for runs in same)))
        if len(same) > 1 and seeds:
            of_seeds = [[run for runs in same for run in runs if run["seed"] == seed] for seed in seeds]
            yield {
                "variant": variant,
                "good": f"mean of {len(same)}",
                "epochs": epochs,
                "runs": list(map(_mean, of_seeds)),
            }


def _mean(runs: Sequence[Document]) -> Document:
    """Of the runs of one seed."""
    found = {kind: mean(run["AUROC"][kind] for run in runs) for kind in runs[0]["AUROC"]}
    mmd = {"mmd": [mean(run["mmd"][-1] for run in runs)]} if "mmd" in runs[0] else {}
    return {"AUROC": found, "learnt_cpu_s": mean(run["learnt_cpu_s"] for run in runs), **mmd}


def _has(run: Document, column: str) -> bool:
    return "mmd" in run if column == "MMD" else column in run["AUROC"]


def _value(run: Document, column: str) -> float:
    value: float = run["mmd"][-1] if column == "MMD" else run["AUROC"][column]
    return value


def _curves(rows: Sequence[Document]) -> str:
    lines = ["| variant | good class | seeds | AUROC after the pass |", "|---|---|---|---|"]
    for row in rows:
        runs = row["runs"]
        points = [f"{number}: {mean(run['curve'][number] for run in runs):.3f}" for number in runs[0]["curve"]]
        lines.append(f"| {row['variant']} | {row['good']} | {len(runs)} | {', '.join(points)} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Run what is asked for and not there yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.one_class", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="labelled data, see trainers.dataset.labelled")
    parser.add_argument("--variant", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), help="default: all")
    parser.add_argument("--good", type=int, nargs="*", default=[0, 1, 2], help="classes that are good in turn")
    parser.add_argument("--seed", type=int, nargs="*", default=[0])
    parser.add_argument("--epochs", type=int, help="passes, instead of each variant's own")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON file goes")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    options = parser.parse_args(arguments)
    data = read_labelled(options.data)
    if data is None:
        parser.error(f"--data {options.data}: no labelled data there")
    rows = Rows(options.data.name, options.out)
    runs = [
        Run(variant, data.classes[good], options.epochs or VARIANTS[variant].epochs, seed)
        for seed in options.seed
        for variant in options.variant
        for good in options.good
    ]
    with torch_threads(options.threads):
        test = resized.read(data.test.images, SIDE_PX, on_stderr())
        for run in runs:
            if not rows.has(run):
                print(run, rows.add(run, measure(data, test, run.settings, run)), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
