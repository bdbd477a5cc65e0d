"""Views and distributions: against NumPy's turns and a float64 reading of the colour changes."""

import colorsys

import numpy as np
import torch

from trainers.droc.views import ACCUMULATED, GREY, JITTER, ROTATED, _coloured, mirrors, view, widened


def pictures(count=4, side=16):
    return torch.rand((count, 3, side, side), generator=torch.Generator().manual_seed(0))


def test_distributions_are_turns_and_mirror_images():
    x = pictures()
    found = widened(x, ACCUMULATED).reshape(8, 4, 3, 16, 16).numpy()
    plain = x.numpy()
    for k in range(4):
        np.testing.assert_array_equal(found[2 * k], np.rot90(plain, k, (2, 3)))
        np.testing.assert_array_equal(found[2 * k + 1], np.rot90(plain[..., ::-1], k, (2, 3)))
    assert len({one.tobytes() for one in found}) == 8  # the dihedral group, each once
    assert torch.equal(widened(x, ROTATED), torch.from_numpy(found[::2].copy()).flatten(0, 1))


def test_where_mirror_images_are_other_pictures_no_view_is_mirrored():
    assert mirrors(ACCUMULATED[:2])
    assert not mirrors(ROTATED)
    ramp = torch.linspace(0, 1, 16).expand(64, 3, 16, 16)  # brighter to the right
    for mirrored, share in ((False, 0.0), (True, 0.5)):
        seen = view(ramp, torch.Generator().manual_seed(1), mirrored=mirrored)
        backwards = (seen[..., -1].mean(dim=(1, 2)) < seen[..., 0].mean(dim=(1, 2))).float().mean()
        assert abs(float(backwards) - share) < 0.2


def test_a_view_is_a_picture_drawn_by_the_generator():
    one, same, other = (view(pictures(), torch.Generator().manual_seed(seed), mirrored=True) for seed in (1, 1, 2))
    assert one.shape == (4, 3, 16, 16)
    assert 0 <= float(one.min()) <= float(one.max()) <= 1
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def coloured(x, saturation=0.5, contrast=0.5, brightness=0.5, hue=0.5, grey=1.0):
    """`_coloured` with draws; 0.5 changes nothing."""
    draws = torch.tensor([saturation, contrast, brightness, hue, grey])[:, None].expand(5, len(x))
    return _coloured(x, draws)


def test_the_middle_of_all_draws_changes_nothing():
    torch.testing.assert_close(coloured(pictures()), pictures(), atol=1e-5, rtol=0)


def test_each_draw_changes_one_thing():
    """On muted colours, so that nothing is cut off at 0 and 1."""
    x = 0.4 + 0.2 * pictures()
    luminance = torch.tensor([0.299, 0.587, 0.114])
    grey = torch.einsum("c,nchw->nhw", luminance, x)[:, None]
    mean = grey.mean(dim=(1, 2, 3), keepdim=True)
    top = 1 + JITTER
    torch.testing.assert_close(coloured(x, brightness=1.0), (top * x).clamp(0, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(coloured(x, contrast=1.0), mean + top * (x - mean), atol=1e-5, rtol=0)
    torch.testing.assert_close(coloured(x, saturation=1.0), grey + top * (x - grey), atol=1e-4, rtol=0)
    torch.testing.assert_close(coloured(x, grey=GREY / 2), grey.expand_as(x), atol=1e-4, rtol=0)


def test_hue_turns_colours_and_keeps_their_luminance():
    """In YIQ, as in NTSC's and Python's colorsys."""
    x = 0.45 + 0.1 * pictures(1, 4)
    turned = coloured(x, hue=1.0)
    for before, after in zip(x[0].flatten(1).T.tolist(), turned[0].flatten(1).T.tolist(), strict=True):
        (y, i, q), (y2, i2, q2) = colorsys.rgb_to_yiq(*before), colorsys.rgb_to_yiq(*after)
        assert abs(y - y2) < 2e-3
        angle = np.angle(complex(i2, q2) / complex(i, q))
        assert abs(angle - 2 * np.pi * JITTER) < 0.1
