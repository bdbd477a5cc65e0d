"""Crops and turns: every view is one of the picture's, and all of them occur."""

import torch

from trainers.ssae.views import crop, turn


def seed(number=0):
    return torch.Generator().manual_seed(number)


def numbered(n, side):
    """Pictures all of whose values differ."""
    return torch.arange(n * 3 * side * side, dtype=torch.float32).view(n, 3, side, side)


def test_crops_are_windows_of_their_pictures():
    pictures = numbered(60, 8)
    views = crop(pictures, 6, seed())
    windows = {(i, j): pictures[:, :, i : i + 6, j : j + 6] for i in range(3) for j in range(3)}
    found = [next(at for at, w in windows.items() if torch.equal(w[k], views[k])) for k in range(60)]
    assert set(found) == set(windows)
    assert torch.equal(crop(pictures, 8, seed()), pictures)


def test_turns_are_the_eight_of_the_square():
    pictures = numbered(1, 4).expand(200, 3, 4, 4)
    symmetries = [torch.rot90(p, k, (-2, -1)) for p in (pictures[0], pictures[0].flip(-1)) for k in range(4)]

    def found(**what):
        views = turn(pictures, generator=seed(), **what)
        return {next(i for i, s in enumerate(symmetries) if torch.equal(s, view)) for view in views}

    assert found(rotations=True, flips=True) == set(range(8))
    assert found(rotations=True, flips=False) == {0, 1, 2, 3}
    assert found(rotations=False, flips=False) == {0}
    assert len(found(rotations=False, flips=True)) == 4
