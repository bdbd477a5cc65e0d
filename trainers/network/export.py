"""A torch network as an ONNX file: dynamic batch, fixed picture size, nothing in it that differs between machines."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import nn

from engine.contract import INPUT_NAME

OPSET = 18
_EXPORT_BATCH = 2  # 0 and 1 would be specialised


def export_onnx(network: nn.Module, path: Path, side_px: int, outputs: Sequence[str]) -> None:
    """Write a network of (N, side_px, side_px, 3) uint8 RGB pictures; `outputs` names its results in order.

    The same network gives the same bytes: source positions and names of the exporter are left out.
    """
    images = torch.zeros((_EXPORT_BATCH, side_px, side_px, 3), dtype=torch.uint8)
    with torch.no_grad(), _quiet(), _uncollected():
        program = torch.onnx.export(
            network.eval(),
            (images,),
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=list(outputs),
            dynamic_shapes={"images": {0: torch.export.Dim("N", min=1)}},
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export(dynamo=True) gave no program")
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about its own internals, and that torchvision is not there."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _uncollected() -> Iterator[None]:
    """The exporter makes millions of small objects, none of them garbage: looking for some is a fifth of its time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _strip(model: onnx.ModelProto) -> None:
    """Remove what records where and how the graph was made."""
    model.producer_version = ""
    model.doc_string = ""
    del model.metadata_props[:]
    graph = model.graph
    graph.doc_string = ""
    for item in [*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]:
        item.doc_string = ""
        del item.metadata_props[:]
    del graph.metadata_props[:]
