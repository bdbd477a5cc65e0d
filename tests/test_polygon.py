import cv2
import numpy as np
import pytest

from engine.polygon import fault, inside

STAR = [(31.3, 2.2), (38.1, 22.4), (58.7, 22.9), (42.2, 35.6), (48.6, 55.3), (31.1, 43.7), (13.9, 55.1), (20.4, 35.2)]


@pytest.mark.parametrize("corners", [STAR, STAR[::-1], [(-9.7, 5.1), (80.3, 20.2), (22.6, 90.9)]])
def test_a_pixel_is_inside_where_its_centre_is(corners):
    """Against OpenCV's test of single points."""
    found = inside(np.array(corners), (60, 64))
    contour = np.array(corners, np.float32)
    expected = [[cv2.pointPolygonTest(contour, (x + 0.5, y + 0.5), False) > 0 for x in range(64)] for y in range(60)]
    np.testing.assert_array_equal(found, expected)


def test_parts_that_meet_share_no_pixel_and_leave_none_out():
    size = (9, 13)
    diagonal = [inside(np.array(t, float), size) for t in ([(0, 0), (13, 0), (13, 9)], [(0, 0), (13, 9), (0, 9)])]
    halves = [inside(np.array([(x, 0), (x + 6.5, 0), (x + 6.5, 9), (x, 9)]), size) for x in (0, 6.5)]
    for one, other in (diagonal, halves):
        np.testing.assert_array_equal(one, ~other)
    assert inside(np.array([(2, 3), (5, 3), (5, 7), (2, 7)], float), size).sum() == 12


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (((0, 0), (1, 1)), "at least 3 points, got 2"),
        (((0, 0), (1, 0), (1, 1.5)), r"0\.\.1, got \[1, 1\.5\]"),
        (((0, 0), (1, 0), (float("nan"), 1)), r"got \[nan, 1\]"),
        (((0, 0), (1, 1), (1, 0), (0, 1)), "edges from point 0 and from point 2 cross"),
        (((0, 0), (0.5, 0.5), (1, 1)), "on one line"),
    ],
)
def test_what_is_wrong_with_a_polygon_is_said(points, said):
    assert fault(((0, 0), (1, 0), (1, 1)), 1.0) is None
    with pytest.raises(ValueError, match=said):
        raise ValueError(fault(points, 1.0))
