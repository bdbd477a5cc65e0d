"""What can be set, and what is refused."""

import pytest
import torch

from engine.errors import UsageError
from trainers.base import TrainOptions
from trainers.ssae import Settings
from trainers.width import default_width


def test_defaults_are_the_papers_where_it_gives_them():
    settings = Settings()
    assert settings.objective == "1"
    assert settings.lam[0] == 0.5
    assert Settings(width="full").rate == 1e-4
    assert settings.corruption.kind == "elastic"
    assert settings.stages[-1] == 1.0
    assert list(settings.stages) == sorted(settings.stages)


def test_the_width_is_decided_by_the_machine_and_recorded(tmp_path):
    decided = Settings().with_options(TrainOptions(tmp_path, tmp_path))
    assert decided.width == default_width() == ("full" if torch.cuda.is_available() else "narrow")
    assert decided.record()["width"] == decided.width
    asked = Settings(width="narrow").with_options(TrainOptions(tmp_path, tmp_path, width="full"))
    assert (asked.width, asked.channel_share) == ("full", 1.0)


def test_options_override_settings(tmp_path):
    options = TrainOptions(tmp_path, tmp_path, epochs=3, image_size=96, objective="both")
    settings = Settings(width="narrow").with_options(options)
    assert (settings.epochs, settings.side_px, settings.objective, settings.width) == (3, 96, "both", "narrow")


@pytest.mark.parametrize(
    ("augmentation", "turned"),
    [("none", (False, False)), ("rotations", (True, False)), ("flips", (False, True)), ("both", (True, True))],
)
def test_pictures_are_turned_as_asked(augmentation, turned, tmp_path):
    settings = Settings().with_options(TrainOptions(tmp_path, tmp_path, augmentation=augmentation))
    assert (settings.rotations, settings.flips) == turned
    assert (Settings().rotations, Settings().flips) == (True, True)


def test_the_record_is_plain():
    record = Settings(width="full").record()
    assert record["stages"] == ",".join(map(str, Settings().stages))
    assert record["corruption_kind"] == "elastic"
    assert all(isinstance(value, str | int | float | bool) for value in record.values())


def test_what_makes_no_sense_is_refused():
    with pytest.raises(UsageError, match="--image-size 100: expected a multiple of 8 px; use 96"):
        Settings(side_px=100)
    with pytest.raises(UsageError, match="--epochs 0"):
        Settings(epochs=0)
