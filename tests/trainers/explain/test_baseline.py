"""What pictures are compared with."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.errors import UsageError
from trainers.explain.baseline import baseline, read


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)


def test_blur_keeps_what_is_coarse_only(picture):
    blurred = baseline("blur", picture)
    assert blurred.dtype == np.uint8
    assert blurred.std() < 0.15 * picture.std()
    assert abs(blurred.mean() - picture.mean()) < 1


def test_black_is_black(picture):
    assert not baseline("black", picture).any()
    assert baseline("black", picture).shape == picture.shape


def test_a_picture_is_brought_to_size(picture, tmp_path):
    other = np.full((20, 30, 3), (10, 20, 30), np.uint8)
    cv2.imwrite(str(tmp_path / "good.png"), other[..., ::-1])
    assert np.array_equal(baseline(str(tmp_path / "good.png"), picture), np.broadcast_to((10, 20, 30), picture.shape))


def test_what_cannot_be_read_is_refused_with_its_name(picture, tmp_path):
    with pytest.raises(UsageError, match=r"^--baseline \(a file, or one of blur, black\): gone.png cannot be read"):
        baseline("gone.png", picture)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UsageError, match=r"^IMAGE: .*text.png: data"):
        read(tmp_path / "text.png", "IMAGE")
    with pytest.raises(UsageError, match=r"^IMAGE: .* cannot be read \(Is a directory\)"):
        read(tmp_path, "IMAGE")
