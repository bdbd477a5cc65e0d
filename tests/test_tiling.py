"""Where tiles lie, that their blending is a partition of unity, and that it leaves no seams."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter

from engine.contract import Tiling
from engine.tiling import AT_ONCE, Layout, starts, weights

SIZES = [(64, 64), (65, 64), (63, 200), (128, 192), (129, 191), (300, 500), (20, 300)]


def layout(height, width, side_px=64, cell_px=8, overlap=0.25):
    return Layout(height, width, Tiling(side_px, cell_px, overlap))


def places(found, image):
    """(T, s, s, 3) all tiles."""
    return np.stack([found.tile(image, number) for number in range(len(found))])


@given(st.integers(1, 300), st.integers(2, 40), st.floats(0, 0.5))
def test_tiles_cover_every_cell_from_border_to_border_and_overlap_enough(cells, per_tile, overlap):
    found = starts(cells, per_tile, overlap)
    assert found[0] == 0
    assert cells <= per_tile or found[-1] + per_tile == cells
    steps = np.diff(found)
    assert (steps > 0).all()
    assert (per_tile - steps >= overlap * per_tile - 1e-9).all()
    if len(found) > 1:  # one tile less would not do
        assert (len(found) - 2) * np.floor(per_tile * (1 - overlap)) < cells - per_tile


@pytest.mark.parametrize(
    ("cells", "expected"), [(5, (0,)), (8, (0,)), (9, (0, 1)), (14, (0, 6)), (15, (0, 4, 7)), (20, (0, 6, 12))]
)
def test_exact_multiples_and_remainders_of_one_cell(cells, expected):
    assert starts(cells, 8, 0.25) == expected


def test_tiles_without_a_step_are_refused():
    with pytest.raises(ValueError, match="more than 1 cells"):
        starts(10, 1, 0.25)


@given(st.integers(1, 300), st.integers(2, 40), st.floats(0, 0.5))
def test_weights_are_positive_and_sum_to_one_at_every_cell(cells, per_tile, overlap):
    corners = starts(cells, per_tile, overlap)
    total = np.zeros(max(cells, per_tile))
    for start, each in zip(corners, weights(cells, per_tile, corners), strict=True):
        assert (each > 0).all()
        total[start : start + per_tile] += each
    np.testing.assert_allclose(total, 1, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_every_pixel_is_in_a_tile_in_its_place(size):
    found = layout(*size)
    image = np.zeros((*size, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(size[0])[:, None] % 251, np.arange(size[1]) % 251
    seen = np.zeros(size, bool)
    tiles = places(found, image)
    for number, tile in enumerate(tiles):
        i, j = divmod(number, len(found._columns.starts))
        top, left = 8 * found._rows.starts[i], 8 * found._columns.starts[j]
        part = image[top : top + 64, left : left + 64]
        np.testing.assert_array_equal(tile[: part.shape[0], : part.shape[1]], part)
        seen[top : top + 64, left : left + 64] = True
    assert seen.all()


def test_a_picture_that_ends_inside_a_tile_is_continued_by_its_mirror_image():
    image = np.random.default_rng(0).integers(0, 256, (20, 100, 3), dtype=np.uint8)
    first = layout(20, 100).tile(image, 0)
    expected = np.pad(image, ((0, 44), (0, 0), (0, 0)), mode="symmetric")[:, :64]
    np.testing.assert_array_equal(first, expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
def test_a_constant_map_stays_constant(size, overlap):
    found = layout(*size, overlap=overlap)
    (grids,) = found.look(
        np.zeros((2, *size, 3), np.uint8), lambda tiles: (np.full((len(tiles), 8, 8), 7, np.float32),)
    )
    assert grids.shape == (2, *found.grid) == (2, -(-size[0] // 8), -(-size[1] // 8))
    np.testing.assert_allclose(grids, 7, rtol=1e-6)
    np.testing.assert_allclose(found.head(3.0)(grids)[1], 7, rtol=1e-6)


def local(image):
    """(h, w) contrast of each cell of 8 px: what a network sees that looks no further."""
    cells = image.mean(axis=2, dtype=np.float64).reshape(image.shape[0] // 8, 8, image.shape[1] // 8, 8)
    return cells.std(axis=(1, 3)).astype(np.float32)


def test_a_network_that_looks_no_further_than_a_cell_gives_the_whole_picture_s_map():
    image = np.random.default_rng(1).integers(0, 256, (200, 328, 3), dtype=np.uint8)
    found = layout(200, 328)
    (grids,) = found.look(image[None], lambda tiles: (np.stack([local(tile) for tile in tiles]),))
    np.testing.assert_allclose(grids[0], local(image), rtol=1e-5)
    whole = found.head(3.0)(local(image)[None])
    blended = found.head(3.0)(grids)
    np.testing.assert_allclose(blended[0], whole[0], rtol=1e-5)
    np.testing.assert_allclose(blended[1], whole[1], rtol=1e-4)


def padded(image):
    """`local` averaged over 5 x 5 cells with zeros outside, as a convolution sees a border."""
    return uniform_filter(local(image), 5, mode="constant")


def test_what_a_network_sees_at_a_tile_s_edge_leaves_no_seam():
    """Convolutions see zeros beyond a tile, so tiles are wrong near their edges, where the map must not jump."""
    image = np.random.default_rng(2).integers(100, 156, (384, 384, 3), dtype=np.uint8)
    found = layout(384, 384, side_px=128)
    inside = (slice(24, -24), slice(24, -24))  # away from the picture's own border
    whole = found.head(0.0)(padded(image)[None])[1][0][inside]
    (grids,) = found.look(image[None], lambda tiles: (np.stack([padded(tile) for tile in tiles]),))
    blended = found.head(0.0)(grids)[1][0][inside]
    squares = image.reshape(3, 128, 3, 128, 3).swapaxes(1, 2)  # side by side instead
    beside = np.block([[padded(square) for square in row] for row in squares])
    beside = found.head(0.0)(beside[None])[1][0][inside]
    assert np.abs(blended / whole - 1).max() < 0.15 < 0.5 < np.abs(beside / whole - 1).max()
    assert jump(blended) < 2 * jump(whole) < 4 * jump(whole) < jump(beside)


def jump(found):
    """The largest difference of neighbouring pixels."""
    return max(np.abs(np.diff(found, axis=axis)).max() for axis in (0, 1))


def test_a_network_is_given_few_tiles_at_once_whatever_the_picture_and_scores_are_the_largest():
    asked = []

    def look(tiles):
        asked.append(len(tiles))
        brightest = tiles.reshape(len(tiles), -1).max(axis=1).astype(np.float32)
        return np.zeros((len(tiles), 8, 8), np.float32), brightest

    images = np.zeros((3, 300, 500, 3), np.uint8)
    images[1, 299, 499], images[2, 150, 250] = 200, 90
    found = layout(300, 500)
    grids, scores = found.look(images, look)
    assert grids.shape == (3, 38, 63)
    assert scores.tolist() == [0, 200, 90]
    assert max(asked) == AT_ONCE
    assert sum(asked) == 3 * len(found)
