import numpy as np

from engine.images import resize
from engine.sheet import Sheet


def test_every_size_is_made_from_the_picture_itself():
    picture = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    sheet = Sheet(((64, 48), (32, 32), (40, 80)))
    fitted = np.stack([sheet.fit(picture), sheet.fit(picture[::-1])])
    assert fitted.shape == (2, sheet.height, sheet.width, 3) == (2, 136, 80, 3)
    for size in sheet.sizes:
        view = sheet.view(fitted, size)
        assert view.flags.c_contiguous
        np.testing.assert_array_equal(view[0], resize(picture, *size))
        np.testing.assert_array_equal(view[1], resize(picture[::-1], *size))


def test_one_size_is_the_resized_picture_and_no_copy():
    picture = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    sheet = Sheet(((64, 48),))
    np.testing.assert_array_equal(sheet.fit(picture), resize(picture, 64, 48))
    batch = sheet.fit(picture)[None]
    assert sheet.view(batch, (64, 48)) is batch
