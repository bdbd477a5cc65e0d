"""A bundle that a tritonserver runs: its member's raw scores and maps, judged here as those of every backend."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from engine.bundle import Bundle
from engine.config import Triton
from engine.contract import Precision
from engine.errors import BackendAwayError, BackendError, MissingExtraError, UsageError
from engine.serving.base import RawBatch
from engine.serving.regions import ASK_S
from engine.serving.transport import MessageTransport, SharedTransport, Transport
from engine.triton.models import MAX_BATCH, Names
from engine.triton.served import Flavour, tag
from engine.types import U8

_FLAVOURS: tuple[Flavour, ...] = ("gpu", "cpu")
_GONE = "UNAVAILABLE"
_AWAY = (_GONE, "DEADLINE_EXCEEDED", "CANCELLED", "NOT_FOUND")
_HERE = ("127.0.0.1", "localhost", "[::1]", "unix")
_REGION = "shared memory region"
_RECONNECT_MS = 500
_LETS_GO_S = 0.01  # a server uses a request's memory for a moment after its answer
_CHANNEL = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", _RECONNECT_MS),
)


class TritonPredictor:
    """A `Predictor` over gRPC; each thread that calls `predict` has a request of its own in flight.

    It asks for exactly its bundle, by a model's name that carries the bundle's digest, so that no other version can
    answer. Raises BackendAwayError while the server cannot be reached or does not serve that bundle; whoever calls
    again then reconnects.
    """

    backend = "triton"

    def __init__(self, bundle: Bundle, precision: Precision, settings: Triton, batch_size: int) -> None:
        manifest = bundle.manifest
        self.precision = precision
        self._settings = settings
        client, self._foreign = _client()
        if settings.shared_memory == "cuda":
            _require_cuda()
        self._client = client(settings.url, channel_args=_CHANNEL)
        self._wanted = f"{manifest.model} in {precision}"
        self._members = [Names(manifest.method, tag(manifest, precision, flavour)).member for flavour in _FLAVOURS]
        self._member: str | None = None
        self._size = (manifest.input.height, manifest.input.width)
        self._capacity = min(batch_size, MAX_BATCH)
        self._idle: queue.LifoQueue[Transport] = queue.LifoQueue()
        self._leaving: queue.SimpleQueue[Transport] = queue.SimpleQueue()  # the server has not let go of them yet

    def predict(self, images: U8) -> RawBatch:
        """See `Predictor.predict`."""
        parts = [self._ask(images[i : i + self._capacity]) for i in range(0, len(images), self._capacity)]
        return parts[0] if len(parts) == 1 else RawBatch.joined(parts)

    def close(self) -> None:
        """See `Predictor.close`."""
        self._close_all(self._idle)
        end = time.monotonic() + ASK_S
        while not self._leaving.empty() and time.monotonic() < end:
            time.sleep(_LETS_GO_S)
            self._close_all(self._leaving)
        self._client.close()

    def _ask(self, images: U8, forgotten: bool = False) -> RawBatch:
        """One request; once more where a restarted server has forgotten the shared memory."""
        if images.shape[1:3] != self._size:
            raise BackendError(f"Triton: expected pictures of {self._size} px, got a batch of shape {images.shape}")
        try:
            with self._transport() as transport:
                return transport.ask(self._find_member(), images, self._settings.timeout_ms / 1e3)
        except self._foreign as error:
            if _REGION in str(error) and not forgotten:
                self._close_all(self._idle)
                return self._ask(images, forgotten=True)
            raise self._translated(error, images) from error

    @contextmanager
    def _transport(self) -> Iterator[Transport]:
        """An idle transport or a new one. One that failed is not used again: the server may still write to it."""
        try:
            transport = self._idle.get_nowait()
        except queue.Empty:
            transport = self._new_transport()
        try:
            yield transport
        except BaseException:
            self._close_transport(transport)
            raise
        self._idle.put(transport)

    def _new_transport(self) -> Transport:
        how = self._settings.shared_memory
        if how == "auto":
            how = "system" if self._settings.url.startswith(_HERE) else "off"
        if how == "off":
            return MessageTransport(self._client)
        transport = SharedTransport(self._client, self._capacity, self._size, cuda=how == "cuda")
        self._close_all(self._leaving)  # the server answers again
        return transport

    def _close_all(self, transports: queue.LifoQueue[Transport] | queue.SimpleQueue[Transport]) -> None:
        for _ in range(transports.qsize()):
            with suppress(queue.Empty):  # another thread took it
                self._close_transport(transports.get_nowait())

    def _close_transport(self, transport: Transport) -> None:
        """Give it back; at the next occasion where the server is still using its memory, or hangs."""
        try:
            transport.close()
        except self._foreign as error:
            if _GONE not in str(error):  # a server that is gone holds nothing
                self._leaving.put(transport)

    def _find_member(self) -> str:
        """The model of this bundle on the server; raises BackendAwayError where it serves none."""
        if self._member is None:
            self._member = next((name for name in self._members if self._serves(name)), None)
        if self._member is None:
            raise BackendAwayError(
                f"Triton at {self._settings.url}: does not serve {self._wanted} (no model {self._members[-1]}); "
                f"publish it: engine export BUNDLE --target triton --out REPO"
            )
        return self._member

    def _serves(self, model: str) -> bool:
        return bool(self._client.is_model_ready(model, client_timeout=ASK_S))

    def _translated(self, error: Exception, images: U8) -> BackendError:
        """The server's refusal as this engine's error: away where another try may succeed."""
        message = f"Triton at {self._settings.url}: {error}"
        if _REGION in str(error):
            return BackendAwayError(f"{message}; the server cannot share memory: triton.shared_memory = 'off'")
        if any(status in str(error) for status in _AWAY):
            self._member = None
            return BackendAwayError(message)
        return BackendError(f"{message} (a batch of shape {images.shape})")


def _client() -> tuple[Any, type[Exception]]:
    """tritonclient's gRPC client class and its exception."""
    try:
        from tritonclient.grpc import InferenceServerClient
        from tritonclient.utils import InferenceServerException
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"backend 'triton' ({error.name} is not installed)", "triton") from None
    return InferenceServerClient, InferenceServerException


def _require_cuda() -> None:
    try:
        import tritonclient.utils.cuda_shared_memory  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # it raises RuntimeError for what it misses
        raise UsageError(
            f"triton.shared_memory = 'cuda': cannot be used here ({error}); pip install 'tritonclient[cuda]' where an "
            f"NVIDIA driver is, or use 'system'"
        ) from error
