"""Defects made up on good pictures, to judge members without a test label.

One kind would favour the detector that happens to see it, so there are eight, after what lines show: *scratch* (a thin
bent line), *spots* (a few small dots), *stain* (a soft change of brightness or colour), *smear* (blurred in one
direction), *missing* (overpainted with what lies around it), *deformed* (locally warped), *pasted* (another place of
the picture, as in CutPaste, Li et al. 2021, and NSA, Schlüter et al. 2022) and *texture* (the picture's own tiles,
shuffled, under a noise mask, as in DRAEM, Zavrtanik et al. 2021).

Sizes and contrasts are drawn log-uniformly, so that small and faint defects are as frequent as large and strong ones.
Places are drawn in proportion to how much there is to see, because defects are on the part and not on the table; and
what hardly changes the picture is no defect: it is drawn again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from engine.types import F32, U8

Kind = Literal["scratch", "spots", "stain", "smear", "missing", "deformed", "pasted", "texture"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_SEED = 0
_SIDES = (0.04, 0.25)  # of a window, as shares of the picture's shorter side; so are the next two
_LINE = (0.003, 0.015)  # the width of a scratch
_SPOT = (0.004, 0.02)  # the radius of a spot
_CONTRASTS = (0.1, 0.5)  # in grey levels of 1
_VISIBLE = 0.02  # the mean change over a defect, at least
_DRAWS = 8  # at most; the one that changes most is kept
_CELLS = 32  # along each side: the places that are drawn from
_GROUND = 0.05  # of the mean detail: so likely is a cell in which there is nothing to see
_LEAST_PX = 6  # of a window's side
_INPAINTED_PX = 48  # largest side at which a window is inpainted

Random = np.random.Generator


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a picture."""

    top: int
    left: int
    height: int
    width: int

    def of(self, picture: F32) -> F32:
        """(H, W, 3) -> (height, width, 3), a view."""
        return picture[self.top : self.top + self.height, self.left : self.left + self.width]

    @property
    def side(self) -> int:
        """The shorter one, px."""
        return min(self.height, self.width)


@dataclass(frozen=True, slots=True)
class Scene:
    """A good picture (H, W, 3) in [0, 1], how much there is to see in each cell of it, and the chance to draw by."""

    picture: F32
    detail: F32
    random: Random

    @property
    def side(self) -> int:
        """The picture's shorter one, px."""
        return int(min(self.picture.shape[:2]))

    def log_uniform(self, low_high: tuple[float, float]) -> float:
        """A number between two others, each factor as likely as the other."""
        return float(np.exp(self.random.uniform(*np.log(low_high))))

    def place(self) -> tuple[float, float]:
        """(y, x) px, by the detail."""
        cell = self.random.choice(self.detail.size, p=self.detail.ravel())
        y, x = np.divmod(cell, self.detail.shape[1])
        height, width = self.picture.shape[:2]
        offset = self.random.random(2)
        return (y + offset[0]) / self.detail.shape[0] * height, (x + offset[1]) / self.detail.shape[1] * width

    def window(self, stretch: float = 1.0) -> Window:
        """Of a random size about a random place, moved into the picture."""
        area = self.log_uniform(_SIDES) * self.side * stretch
        aspect = self.log_uniform((0.6, 1.7))
        extent = np.array(self.picture.shape[:2])
        size = np.clip(np.rint([area * aspect, area / aspect]).astype(int), _LEAST_PX, extent)
        corner = np.clip(np.rint(np.array(self.place()) - size / 2).astype(int), 0, extent - size)
        return Window(int(corner[0]), int(corner[1]), int(size[0]), int(size[1]))

    def change(self) -> F32:
        """(3,) of brightness, and of colour where the picture has any."""
        sign = self.random.choice([-1.0, 1.0])
        contrast = sign * self.log_uniform(_CONTRASTS) * np.ones(3)
        coloured = bool((np.ptp(self.picture[::8, ::8], axis=2) > 0.03).any())
        found: F32 = (contrast * (self.random.uniform(0.2, 1.0, 3) if coloured else 1.0)).astype(np.float32)
        return found

    def noise(self, window: Window, knots: int = 5, channels: int = 1) -> F32:
        """(height, width) or with channels: varies smoothly over the window, with a variance of about 1."""
        grid = self.random.normal(size=(knots, knots, channels)).astype(np.float32)
        resized = cv2.resize(grid, (window.width, window.height), interpolation=cv2.INTER_CUBIC)
        return np.asarray(resized, np.float32)


Drawn = tuple[Window, F32, F32]  # where, how opaque (h, w) and what (h, w, 3)


def with_defect(good: U8, kind: Kind, random: Random) -> U8:
    """A good picture (H, W, 3) with one defect of a kind."""
    picture = np.divide(good, 255, dtype=np.float32)
    scene = Scene(picture, _detail(picture), random)
    most, defective = -1.0, picture
    for _ in range(_DRAWS):
        window, mask, content = _DRAW[kind](scene)
        change = mask[:, :, None] * (content.clip(0, 1) - window.of(picture))  # (h, w, 3)
        mean = float(np.abs(change).mean(axis=2).sum() / max(float(mask.sum()), 1.0))
        if mean > most:
            most, defective = mean, picture.copy()
            window.of(defective)[:] += change
        if mean >= _VISIBLE:
            break
    found: U8 = np.rint(255 * defective).clip(0, 255).astype(np.uint8)
    return found


def every_kind(good: U8, number: int) -> list[U8]:
    """A good picture (H, W, 3) with a defect of every kind in turn; what is drawn depends on its number alone."""
    random = np.random.default_rng((_SEED, number))
    return [with_defect(good, kind, random) for kind in KINDS]


def _detail(picture: F32) -> F32:
    """(cells, cells) that sum to 1: the standard deviation of grey levels within each, and a little everywhere."""
    grey = picture.mean(axis=2)
    small = cv2.resize(grey, (8 * _CELLS, 8 * _CELLS), interpolation=cv2.INTER_AREA)
    spread = small.reshape(_CELLS, 8, _CELLS, 8).std(axis=(1, 3))
    spread += _GROUND * spread.mean() + 1e-6
    found: F32 = spread / spread.sum(dtype=np.float64)
    return found


def _blob(scene: Scene, window: Window) -> F32:
    """(h, w) in [0, 1]: a ragged shape that is zero on the window's border."""
    v, u = np.linspace(-1, 1, window.height)[:, None], np.linspace(-1, 1, window.width)
    level = (1 - v**2) * (1 - u**2) * np.exp(0.7 * scene.noise(window).clip(-2, 1))
    t = ((level - 0.15) / 0.3).clip(0, 1)
    found: F32 = (t * t * (3 - 2 * t)).astype(np.float32)
    return found


def _drawn(window: Window, mask: npt.ArrayLike, content: npt.ArrayLike) -> Drawn:
    return window, np.asarray(mask, np.float32), np.asarray(content, np.float32)


def _scratch(scene: Scene) -> Drawn:
    window = scene.window(stretch=1.8)
    width = max(1, round(scene.log_uniform(_LINE) * scene.side))
    ends = scene.random.random((3, 2)) * [window.width, window.height]  # of a Bezier curve
    t = np.linspace(0, 1, 32)[:, None]
    curve = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * ends[1] + t**2 * ends[2]
    mask = np.zeros((window.height, window.width), np.uint8)
    cv2.polylines(mask, [np.rint(16 * curve).astype(np.int32)], False, 255, width, cv2.LINE_AA, 4)
    return _drawn(window, mask.astype(np.float32) / 255, window.of(scene.picture) + scene.change())


def _spots(scene: Scene) -> Drawn:
    window = scene.window()
    mask = np.zeros((window.height, window.width), np.uint8)
    for _ in range(scene.random.integers(1, 6)):
        centre = 16 * scene.random.random(2) * [window.width, window.height]
        axes = 16 * np.maximum([scene.log_uniform(_SPOT) * scene.side for _ in range(2)], 1.0)
        x, y = (int(value) for value in centre)
        a, b = (int(value) for value in axes)
        cv2.ellipse(mask, (x, y), (a, b), scene.random.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA, 4)
    return _drawn(window, mask.astype(np.float32) / 255, window.of(scene.picture) + scene.change())


def _stain(scene: Scene) -> Drawn:
    window = scene.window()
    return _drawn(window, _blob(scene, window), window.of(scene.picture) + scene.change())


def _smear(scene: Scene) -> Drawn:
    window = scene.window()
    length = max(5, round(scene.random.uniform(0.2, 0.8) * window.side)) | 1
    kernel = np.zeros((length, length), np.float32)
    angle, centre = scene.random.uniform(0, np.pi), (length - 1) / 2
    step = centre * np.array([np.cos(angle), np.sin(angle)])
    ends = [tuple(int(v) for v in np.rint(centre + sign * step)) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    return _drawn(window, _blob(scene, window), cv2.filter2D(window.of(scene.picture), -1, kernel / kernel.sum()))


def _missing(scene: Scene) -> Drawn:
    window = scene.window()
    mask, patch = _blob(scene, window), window.of(scene.picture)
    share = min(1.0, _INPAINTED_PX / max(patch.shape[:2]))
    size = tuple(max(_LEAST_PX, round(share * side)) for side in (window.width, window.height))
    small = np.rint(255 * cv2.resize(patch, size, interpolation=cv2.INTER_AREA)).astype(np.uint8)
    hole = (cv2.resize(mask, size, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    filled = cv2.inpaint(small, hole, 3, cv2.INPAINT_TELEA).astype(np.float32) / 255
    return _drawn(window, mask, cv2.resize(filled, (window.width, window.height), interpolation=cv2.INTER_LINEAR))


def _deformed(scene: Scene) -> Drawn:
    window = scene.window()
    strength = scene.log_uniform((0.05, 0.3)) * window.side
    shift = strength * scene.noise(window, channels=2)
    y, x = np.indices((window.height, window.width), np.float32)
    at = (x + shift[:, :, 0], y + shift[:, :, 1])
    warped = cv2.remap(window.of(scene.picture), *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return _drawn(window, _blob(scene, window), warped)


def _pasted(scene: Scene) -> Drawn:
    window = scene.window()
    y, x = scene.place()
    angle, size = scene.random.uniform(0, 360), scene.log_uniform((0.7, 1.4))
    turn = np.asarray(cv2.getRotationMatrix2D((x, y), angle, size), np.float64)
    turn[:, 2] += np.array([window.width, window.height]) / 2 - (x, y)
    source = cv2.warpAffine(scene.picture, turn, (window.width, window.height), borderMode=cv2.BORDER_REFLECT)
    ragged = scene.random.random() < 0.5
    mask = _blob(scene, window) if ragged else np.ones((window.height, window.width), np.float32)
    return _drawn(window, mask, source)


def _texture(scene: Scene) -> Drawn:
    window = scene.window()
    size = (4 * -(-window.width // 4), 4 * -(-window.height // 4))
    other = cv2.resize(scene.window().of(scene.picture), size, interpolation=cv2.INTER_LINEAR)
    tiles = other.reshape(4, size[1] // 4, 4, size[0] // 4, 3).transpose(0, 2, 1, 3, 4).reshape(16, -1)
    shuffled = scene.random.permutation(tiles).reshape(4, 4, size[1] // 4, size[0] // 4, 3)
    content = shuffled.transpose(0, 2, 1, 3, 4).reshape(size[1], size[0], 3)[: window.height, : window.width]
    opaque = scene.random.uniform(0.4, 1.0) * (scene.noise(window, knots=7) > 0)
    return _drawn(window, (opaque * (_blob(scene, window) > 0)).astype(np.float32), content)


_DRAW: dict[Kind, Callable[[Scene], Drawn]] = {
    "scratch": _scratch,
    "spots": _spots,
    "stain": _stain,
    "smear": _smear,
    "missing": _missing,
    "deformed": _deformed,
    "pasted": _pasted,
    "texture": _texture,
}
