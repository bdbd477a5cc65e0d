"""How pictures get to a Triton member and raw scores and maps come back: in the messages, or in shared memory."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from engine.contract import RAW_MAP, RAW_SCORE, TRITON_IMAGE
from engine.serving.base import RawBatch
from engine.serving.regions import CudaRegion, Region, SystemRegion
from engine.types import F32, U8

_MAPS_AT_BYTES = 4096  # of the output region: behind the scores, at a page of their own
_PIXEL_BYTES = 3
_NUMBER_BYTES = 4


class Transport(Protocol):
    """One request at a time."""

    def ask(self, model: str, images: U8, timeout_s: float) -> RawBatch:
        """(N, H, W, 3) pictures to a member -> its raw scores and maps; raises tritonclient's exception."""

    def close(self) -> None:
        """Let the server forget its memory; raises tritonclient's exception where it has not: call it again."""


class MessageTransport:
    """Everything in the gRPC messages: for a server on another machine."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def ask(self, model: str, images: U8, timeout_s: float) -> RawBatch:
        """See `Transport.ask`."""
        from tritonclient.grpc import InferInput

        tensor = InferInput(TRITON_IMAGE, list(images.shape), "UINT8")
        tensor.set_data_from_numpy(images)
        result = self._client.infer(model, [tensor], client_timeout=timeout_s)
        return _raw(result.as_numpy(RAW_SCORE), result.as_numpy(RAW_MAP))

    def close(self) -> None:
        """Nothing is held."""


class SharedTransport:
    """Pictures and maps in memory that both see: `capacity` pictures of (height, width).

    With `cuda` the pictures lie in the GPU's; maps come from the server's own memory in any case.
    """

    def __init__(self, client: Any, capacity: int, size: tuple[int, int], cuda: bool) -> None:
        height, width = size
        pixels = capacity * height * width
        self._client = client
        self._size = size
        self._pictures: Region = (CudaRegion if cuda else SystemRegion)(client, pixels * _PIXEL_BYTES)
        self._results = SystemRegion(client, _MAPS_AT_BYTES + pixels * _NUMBER_BYTES)

    def ask(self, model: str, images: U8, timeout_s: float) -> RawBatch:
        """See `Transport.ask`."""
        from tritonclient.grpc import InferInput, InferRequestedOutput

        n, (height, width) = len(images), self._size
        self._pictures.write(images)
        tensor = InferInput(TRITON_IMAGE, list(images.shape), "UINT8")
        tensor.set_shared_memory(self._pictures.name, images.nbytes)
        scores, maps = InferRequestedOutput(RAW_SCORE), InferRequestedOutput(RAW_MAP)
        scores.set_shared_memory(self._results.name, n * _NUMBER_BYTES)
        maps.set_shared_memory(self._results.name, n * height * width * _NUMBER_BYTES, _MAPS_AT_BYTES)
        self._client.infer(model, [tensor], outputs=[scores, maps], client_timeout=timeout_s)
        return _raw(
            self._results.read(np.float32, (n, 1), 0),
            self._results.read(np.float32, (n, height, width), _MAPS_AT_BYTES),
        )

    def close(self) -> None:
        """See `Transport.close`."""
        for region in (self._pictures, self._results):
            region.close(self._client)


def _raw(scores: F32, maps: F32) -> RawBatch:
    return RawBatch(scores=scores[:, 0].astype(np.float64), maps=maps)
