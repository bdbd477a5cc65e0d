"""Protocols: which rows they have, how data is disturbed, and one run of each kind."""

import json
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.contract import Calibration, Estimate, Scale
from engine.errors import UsageError
from engine.serving.base import ConstantPredictor
from engine.sheet import Sheet
from trainers.base import Shared, TrainOptions, TrainReport, Variant
from trainers.dataset import disturb
from trainers.dataset.good import Pictures, read_dataset, read_mask
from trainers.evaluation import protocol
from trainers.evaluation.evaluate import Judge
from trainers.fyd import Fyd, Settings
from trainers.fyd.variants import EPOCHS
from trainers.progress import RecordedProgress

ALL, NONE = (True, True, True), (False, False, False)


def parts_of(settings: Settings):
    """(non-contrastive, ICA, FCA) that a variant learns."""
    return settings.learns and settings.non_contrastive, settings.learns and settings.ica, settings.fca


def test_ablation_has_the_rows_of_tables_4_and_6():
    rows = {(v.table, v.label): parts_of(v.trainer.settings) for v in Fyd().variants("ablation")}
    assert rows == {
        ("Table 4", "baseline"): (False, False, NONE),
        ("Table 4", "+ non-contrastive"): (True, False, NONE),
        ("Table 4", "+ non-contrastive, FCA"): (True, False, ALL),
        ("Table 4", "+ non-contrastive, ICA"): (True, True, NONE),
        ("Table 4", "+ non-contrastive, ICA, FCA"): (True, True, ALL),
        ("Table 6", "no FCA"): (True, True, NONE),
        ("Table 6", "FCA after layer 1"): (True, True, (True, False, False)),
        ("Table 6", "FCA after layer 2"): (True, True, (False, True, False)),
        ("Table 6", "FCA after layer 3"): (True, True, (False, False, True)),
        ("Table 6", "FCA after all three"): (True, True, ALL),
    }


def test_disturbed_trains_on_the_disturbed_copies():
    assert {v.copies for v in Fyd().variants("disturbed")} == {("colour", "spatial")}
    assert {v.copies for v in Fyd().variants("ablation")} == {("as given",)}


def test_disturbed_compares_without_alignment_as_the_appendix_says():
    rows = {v.label: parts_of(v.trainer.settings) for v in Fyd().variants("disturbed")}
    assert rows == {"baseline": (False, False, NONE), "non-contrastive": (True, False, NONE)}


def test_models_shown_twice_are_trained_once():
    variants = Fyd().variants("ablation")
    assert sorted(Counter(id(v.trainer) for v in variants).values()) == [1, 1, 1, 1, 1, 1, 2, 2]


def test_epochs_are_the_callers_or_the_protocols():
    whole = Fyd().variants("ablation")[4].trainer.settings
    assert whole.epochs == EPOCHS
    assert Fyd(replace(Settings(), epochs=3)).variants("ablation")[4].trainer.settings.epochs == 3
    baseline = Fyd().variants("ablation")[0].trainer.settings
    options = TrainOptions(Path(), Path(), epochs=7)
    assert not baseline.with_options(options).learns


# Disturbed copies


@pytest.fixture(scope="module")
def disturbed(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("disturbed")
    return {
        kind: read_dataset(disturb.write_disturbed(read_dataset(parts), kind, folder / kind, 3, RecordedProgress()))
        for kind in disturb.CHANGES
    }


def pixels(items):
    return np.stack([Pictures(items)[i] for i in range(len(items))])


@pytest.mark.parametrize("kind", disturb.CHANGES)
def test_every_picture_is_changed_and_every_role_kept(kind, disturbed, parts):
    before, after = read_dataset(parts), disturbed[kind]
    for part in ("train", "test"):
        old, new = getattr(before, part), getattr(after, part)
        assert [item.defect for item in new] == [item.defect for item in old]
        assert all((a != b).mean() > 0.5 for a, b in zip(pixels(old), pixels(new), strict=True))


def test_what_a_picture_gets_depends_on_its_name_and_the_seed(disturbed, parts, tmp_path):
    source = read_dataset(parts)
    one = replace(source, train=source.train[5:6], test=())
    for seed, same in ((3, True), (4, False)):
        again = disturb.write_disturbed(one, "spatial", tmp_path / str(seed), seed, RecordedProgress())
        picture = pixels(read_dataset(again).train)[0]
        assert np.array_equal(picture, pixels(disturbed["spatial"].train)[5]) == same


def test_masks_move_with_their_defects(tmp_path):
    """The defect is a bright square off the centre: disturbed, it lies where its mask says, elsewhere each time."""
    image, mask = np.full((64, 64, 3), 40, np.uint8), np.zeros((64, 64), np.uint8)
    image[10:22, 38:56], mask[10:22, 38:56] = 230, 255
    for i in range(4):
        for folder, name, content in (("test", f"{i}.png", image), ("ground_truth", f"{i}_mask.png", mask)):
            path = tmp_path / "before" / folder / "spot" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), content)
    before = read_dataset(tmp_path / "before")
    disturb.write_disturbed(before, "spatial", tmp_path / "after", 0, RecordedProgress())
    places = set()
    for item in read_dataset(tmp_path / "after").test:
        bright, where = pixels([item])[0].mean(2) > 135, read_mask(item.mask, 64, 64)
        assert (bright & where).sum() / (bright | where).sum() > 0.85
        places.add(where.tobytes())
    assert len(places) == 4


def test_colours_change_and_masks_stay(disturbed, parts):
    old, new = read_dataset(parts).test, disturbed["colour"].test
    for a, b in zip(old, new, strict=True):
        if a.mask is not None:
            assert np.array_equal(read_mask(a.mask, 64, 64), read_mask(b.mask, 64, 64))
    brightness = [image.mean() for image in pixels(disturbed["colour"].train)]
    assert np.std(brightness) > 3 * np.std([image.mean() for image in pixels(read_dataset(parts).train)])


# Running one


@dataclass
class Recording:
    """A trainer of nothing that notes what it was asked for."""

    label: str
    asked: list[TrainOptions] = field(default_factory=list)
    name: str = "recording"
    in_protocols: tuple[str, ...] = ("ablation",)
    copies: tuple[str, ...] = ("as given",)

    def train(self, options, progress):
        self.asked.append(options)
        assert read_dataset(options.data).train
        return TrainReport(options.out, self.name, "1", 1.0, {}, {"distance_variance": 0.5})

    def variants(self, protocol):
        if protocol not in self.in_protocols:
            return []
        other, copies = Recording("other"), self.copies
        return [
            Variant("A", "this", self, copies),
            Variant("A", "other", other, copies[:1]),
            Variant("B", "this again", self, copies),
        ]


@contextmanager
def brightness_judge(path):
    estimate = Estimate(
        target_fpr=0.01, how="k-fold", guarantee=False, n_images=4, folds=2, interval=(0, 1), note="a test"
    )
    scale = Scale(threshold=0.9, width=0.1)
    calibration = Calibration(image=scale, pixel=scale, image_estimate=estimate, pixel_estimate=estimate)
    yield Judge(ConstantPredictor().predict, Sheet(((64, 64),)), calibration)


def test_rows_are_judged_in_the_tables_order(parts):
    trainer = Recording("this")
    outcome = protocol.run(
        "ablation", trainer, TrainOptions(parts, Path("unused")), brightness_judge, RecordedProgress()
    )
    assert [(row.table, row.variant, row.data) for row in outcome.rows] == [
        ("A", "this", "parts"),
        ("A", "other", "parts"),
        ("B", "this again", "parts"),
    ]
    assert len(trainer.asked) == 1
    assert all(row.image_AUROC is not None and row.pixel_AUPRO is not None for row in outcome.rows)
    assert outcome.rows[0].distance_variance == 0.5
    document = json.loads(json.dumps(outcome.document()))
    assert document["protocol"] == "ablation"
    assert set(document["rows"][0]) >= {"table", "variant", "image_AUROC", "pixel_AUROC", "pixel_AUPRO"}


def test_unknown_protocols_and_methods_without_one_are_refused(parts):
    for name, match in (
        ("everything", "choose one of ablation, contaminated, disturbed"),
        ("disturbed", "has no part in it"),
    ):
        with pytest.raises(UsageError, match=match):
            protocol.run(name, Recording(""), TrainOptions(parts, parts), brightness_judge, RecordedProgress())


@pytest.mark.parametrize(
    ("name", "copies"),
    [
        ("disturbed", ("colour", "spatial")),
        ("small", ("20 %", "60 %", "as given")),
        ("contaminated", ("10 % contaminated",)),
    ],
)
def test_copies_are_trained_and_judged_one_by_one(name, copies, parts):
    trainer = Recording("this", in_protocols=(name,), copies=copies)
    outcome = protocol.run(name, trainer, TrainOptions(parts, parts), brightness_judge, RecordedProgress())
    assert [row.copy for row in outcome.rows if row.variant == "this"] == list(copies)
    assert [row.copy for row in outcome.rows if row.variant == "other"] == [copies[0]]
    assert {row.data for row in outcome.rows} == {"parts"}
    assert len(trainer.asked) == len(copies)
    assert all(
        options.data == parts or not options.data.exists() for options in trainer.asked
    )  # scratch copies are gone


def put_classes(root):
    for part, count in (("train", 5), ("test", 2)):
        for level, name in ((20, "dark"), (240, "bright")):
            for i in range(count):
                path = root / part / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), np.full((64, 64, 3), level + i, np.uint8))
    return root


def test_classes_are_good_in_turn_and_averaged(tmp_path):
    trainer = Recording("this", in_protocols=("one-class",))
    options = TrainOptions(put_classes(tmp_path / "classes"), tmp_path)
    outcome = protocol.run("one-class", trainer, options, brightness_judge, RecordedProgress())
    found = [(row.data, row.image_AUROC) for row in outcome.rows if row.variant == "this"]
    assert found == [("bright", 0.0), ("dark", 1.0), (protocol.MEAN, 0.5)]  # brightness is the anomaly
    assert len(trainer.asked) == 2


def test_one_class_needs_classes(parts):
    trainer = Recording("this", in_protocols=("one-class",))
    with pytest.raises(UsageError, match="has no classes"):
        protocol.run("one-class", trainer, TrainOptions(parts, parts), brightness_judge, RecordedProgress())


@dataclass
class Staged(Recording):
    """A trainer with rows that share a representation, and one whose representation is of outliers."""

    made: Recording = field(default_factory=lambda: Recording("made"))

    def variants(self, protocol):
        made = Shared(self.made)
        return [
            Variant("A", "one", self, ("as given", "10 % outliers"), made),
            Variant("A", "two", Recording("two"), ("as given",), made),
            Variant("A", "of 20 % outliers", self, ("as given",), Shared(made.trainer, "20 % outliers")),
        ]


def test_a_shared_representation_is_made_once_on_each_copy_and_given_to_the_rest(parts):
    trainer = Staged("this")
    options = TrainOptions(parts, parts, epochs=3, image_size=64, backbone="x")
    outcome = protocol.run("contaminated", trainer, options, brightness_judge, RecordedProgress())
    assert [(row.copy, row.variant) for row in outcome.rows] == [
        ("as given", "one"),
        ("as given", "two"),
        ("as given", "of 20 % outliers"),
        ("10 % outliers", "one"),
    ]
    learnt = trainer.made.asked
    assert [asked.data == parts for asked in learnt] == [True, False, False]
    assert all((asked.epochs, asked.image_size, asked.representation) == (3, 64, None) for asked in learnt)
    places = [asked.out for asked in learnt]
    assert len(set(places)) == 3
    assert [asked.representation for asked in trainer.asked] == [places[0], places[1], places[2]]
    assert all((asked.epochs, asked.image_size, asked.backbone) == (None, None, None) for asked in trainer.asked)


def test_a_ratio_takes_the_place_of_the_paper_s(parts):
    trainer = Staged("this")
    outcome = protocol.run(
        "contaminated", trainer, TrainOptions(parts, parts), brightness_judge, RecordedProgress(), ratio=0.15
    )
    assert [(row.copy, row.variant) for row in outcome.rows][2:] == [
        ("as given", "of 15 % outliers"),
        ("15 % outliers", "one"),
    ]
    with pytest.raises(UsageError, match="--ratio: of protocol contaminated only, not of ablation"):
        protocol.run("ablation", trainer, TrainOptions(parts, parts), brightness_judge, RecordedProgress(), ratio=0.1)
