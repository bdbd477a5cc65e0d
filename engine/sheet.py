"""A picture at every size that a model looks at, in one array.

The members of an ensemble take pictures of different sizes. Each size is made from the picture itself, once, as it was
in training, and they lie one below the other, left-aligned, on one sheet: so what batches, queues and sends pictures
handles one array, whatever the model. Where there is one size the sheet is the resized picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.images import resize
from engine.types import U8


@dataclass(frozen=True, slots=True)
class Sheet:
    """The different (height, width) px on it, from the top."""

    sizes: tuple[tuple[int, int], ...]

    @property
    def height(self) -> int:
        """Of the whole, px."""
        return sum(height for height, _ in self.sizes)

    @property
    def width(self) -> int:
        """Of the whole, px."""
        return max(width for _, width in self.sizes)

    def fit(self, image: U8) -> U8:
        """(H, W, 3) of any size -> (height, width, 3)."""
        if len(self.sizes) == 1:
            return resize(image, *self.sizes[0])
        sheet = np.zeros((self.height, self.width, 3), np.uint8)
        top = 0
        for height, width in self.sizes:
            sheet[top : top + height, :width] = resize(image, height, width)
            top += height
        return sheet

    def view(self, sheets: U8, size: tuple[int, int]) -> U8:
        """(N, height, width, 3) -> (N, h, w, 3), contiguous: the pictures at one of the sizes."""
        if len(self.sizes) == 1:
            return sheets
        top = sum(height for height, _ in self.sizes[: self.sizes.index(size)])
        return np.ascontiguousarray(sheets[:, top : top + size[0], : size[1]])
