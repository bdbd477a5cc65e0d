"""What goes together and what does not."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import UsageError
from trainers.base import TrainOptions
from trainers.droc.settings import Settings


def test_maps_come_from_the_network_without_padding_and_whole_pictures_from_resnet():
    assert (Settings().kind, Settings().stride_px, Settings().map_sigma_px > 0) == ("padding-free", 4, True)
    whole = Settings(side_px=32)
    assert (whole.kind, whole.seen, whole.map_sigma_px) == ("resnet18", 1, 0.0)
    assert Settings(network="resnet18").stride_px == 16


def test_batches_are_the_paper_s():
    assert {name: Settings(pretext=name).batch for name in ("rotation", "contrastive", "distaug")} == {
        "rotation": 64,
        "contrastive": 32,
        "distaug": 32,
    }
    assert Settings(batch_size=128).batch == 128


def test_only_distaug_has_several_distributions():
    assert Settings().spread == ("original", "rot90", "rot180", "rot270")
    assert Settings(pretext="contrastive").spread == ("original",)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"side_px": 66}, "--image-size 66: expected the patch's 32 px plus a multiple of 4 px; use 64"),
        ({"side_px": 32, "patch_px": 64}, "--image-size 32: .* use 64"),
        ({"patch_px": 48}, "--patch-size 48: expected a multiple of 32 px; use 32 or 64"),
        ({"patch_px": 128, "network": "padding-free"}, "patches of 32 or 64 px, not 128; use resnet18"),
        ({"epochs": 0}, "--epochs 0"),
        ({"classifier": "rotation-softmax"}, "scores by --pretext rotation, not distaug"),
    ],
)
def test_what_cannot_be_is_refused(values, match):
    with pytest.raises(UsageError, match=match):
        Settings(**values)


def test_baselines_need_no_epochs():
    assert Settings(pretext="random", epochs=0).learns is False


def test_the_manifest_s_record_gives_the_settings_back():
    settings = replace(Settings(), pretext="rotation", width="narrow", learning_rate=0.02, head_layers=3)
    record = settings.record() | {"seed": 3}
    assert all(isinstance(value, int | float | str | bool | None) for value in record.values())
    assert Settings.recorded(record) == settings


def test_the_command_line_comes_first_and_the_width_is_decided():
    options = TrainOptions(Path(), Path(), image_size=128, pretext="rotation", classifier="kde", patch_size=64)
    settings = Settings(epochs=7).with_options(options)
    assert (settings.side_px, settings.patch_px, settings.pretext, settings.classifier) == (128, 64, "rotation", "kde")
    assert settings.epochs == 7
    assert settings.width in ("narrow", "full")


def test_stage_one_does_not_depend_on_stage_two():
    one, two = Settings(classifier="kde", fitted_on=5, kernels=6), Settings(smoothing_sigma_px=1.0)
    assert one.stage_one() == two.stage_one() == Settings()
    assert Settings(epochs=3).stage_one() != Settings().stage_one()
    assert Settings(epochs=3).with_stage_two(one) == replace(one, epochs=3)


def test_classifiers_that_keep_features_or_grow_slow_are_fitted_to_fewer():
    assert Settings().most_features == 20_000
    assert {Settings(classifier=name).most_features for name in ("kde", "oc-svm", "oc-svm-linear", "cosine")} == {4_000}
