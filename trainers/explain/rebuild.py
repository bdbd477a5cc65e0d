"""A bundle's detector as a module of torch: the same score, but one that has a gradient.

A bundle holds an ONNX graph, which only gives values. onnx2fx turns the graph into torch operations, whatever method
it came from; the Gaussian's map and the map head follow as in `engine.serving.detector`. Nothing of this is taken on
trust: `Rebuilt.verify` compares its score of the very picture with the one that is served. (onnx2torch and onnx2pytorch
need torchvision, which does not load beside a torch from another index; keeping the trainers' own modules in bundles
would leave out those that exist.)
Letters: N batch, C channels, H W picture, h w grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import onnx
import onnx2fx
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F

from engine.bundle import Bundle
from engine.contract import FEATURES_NAME, GRID_NAME, POSITIONS_NAME, SCORE_NAME
from engine.errors import BackendError
from engine.maps import operator
from kernels import Gaussian
from trainers.network.mahalanobis import Mahalanobis

TOLERANCE = 1e-4  # of the score, or of the calibrated scale's width where that is larger


class Seen(NamedTuple):
    """What a detector says of N pictures: raw `scores` (N,) and `maps` (N, H, W)."""

    scores: Tensor
    maps: Tensor


class Rebuilt(nn.Module):
    """A bundle's fp32 executable. `network` is the ONNX graph, whose outputs are called `outputs`."""

    def __init__(
        self, network: GraphModule, outputs: tuple[str, ...], mahalanobis: Mahalanobis | None, head: Head
    ) -> None:
        super().__init__()
        self.network = network
        self.outputs = outputs
        self.mahalanobis = mahalanobis
        self.head = head

    @property
    def scores_itself(self) -> bool:
        """Whether the score is the network's own, not the maximum of the map."""
        return SCORE_NAME in self.outputs

    def forward(self, images: Tensor) -> Seen:
        """(N, H, W, 3) RGB of 0..255, float32 -> scores and maps."""
        found = self.run(images)
        grids = found[GRID_NAME] if self.mahalanobis is None else self.mahalanobis(found[FEATURES_NAME])  # (N, h, w)
        if POSITIONS_NAME in found:
            grids = _to_picture(grids, found[POSITIONS_NAME])
        maps = self.head(grids)
        return Seen(found[SCORE_NAME] if self.scores_itself else maps.flatten(1).amax(dim=1), maps)

    def run(self, images: Tensor) -> Mapping[str, Tensor]:
        """The network's outputs by name."""
        found = self.network(images)
        return dict(zip(self.outputs, found if isinstance(found, tuple | list) else (found,), strict=True))


class Head(nn.Module):
    """`engine.maps.MapHead` without the maximum: (N, h, w) -> (N, H, W)."""

    rows: Tensor
    columns: Tensor

    def __init__(self, grid: tuple[int, int], height: int, width: int, sigma_px: float) -> None:
        super().__init__()
        self.register_buffer("rows", torch.from_numpy(operator(grid[0], height, sigma_px)).float())  # (H, h)
        self.register_buffer("columns", torch.from_numpy(operator(grid[1], width, sigma_px)).float())  # (W, w)

    def forward(self, grids: Tensor) -> Tensor:
        return self.rows @ grids @ self.columns.T


def rebuild(bundle: Bundle) -> Rebuilt:
    """The module of a bundle's fp32 executable.

    Raises BundleError where it has none, BackendError where its graph has an operator that is not known.
    """
    manifest, executable = bundle.manifest, bundle.executable("fp32")
    network, outputs = _converted(bundle.file(executable.network))
    gaussian = executable.gaussian
    mahalanobis = None if gaussian is None else Mahalanobis(Gaussian.load(bundle.file(gaussian)))
    head = Head(manifest.grid, manifest.input.height, manifest.input.width, manifest.smoothing_sigma_px)
    return Rebuilt(network, outputs, mahalanobis, head).eval().requires_grad_(False)


def verify(rebuilt_score: float, served_score: float, width: float) -> None:
    """Raise BackendError unless both scores of one picture agree; `width` is that of the image's calibrated scale."""
    allowed = TOLERANCE * max(abs(served_score), width)
    if not abs(rebuilt_score - served_score) <= allowed:
        raise BackendError(
            f"raw score: expected the {served_score:.6g} that the bundle gives within {allowed:.2g}, got "
            f"{rebuilt_score:.6g} from the graph rebuilt in torch; nothing is explained on a model that is not the "
            f"same: please report it with the bundle's network.onnx and the versions of onnx2fx and torch"
        )


def _converted(path: Path) -> tuple[GraphModule, tuple[str, ...]]:
    """The graph of an ONNX file, and its outputs' names."""
    model = onnx.load(path)
    try:
        network = onnx2fx.convert(model)
    except onnx2fx.Onnx2FxError as error:
        raise BackendError(f"{path}: cannot be rebuilt in torch: {error}") from error
    return network, tuple(output.name for output in model.graph.output)


def _to_picture(grids: Tensor, positions: Tensor) -> Tensor:
    """`engine.alignment.to_picture`: (N, h, w) sampled at (N, h, w, 2)."""
    sampled = F.grid_sample(grids.unsqueeze(1), positions, "bilinear", "border", align_corners=False)
    return sampled.squeeze(1)
