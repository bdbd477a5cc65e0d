"""Inside a Triton python-backend process: requests to one batch, and its outputs back to responses.

Tensors move by DLPack. The stub's own `Tensor(name, array)` sends nothing at all where NumPy is 2 or newer, and says no
word; `Tensor.from_dlpack` works, and what it made is looked at before it is sent.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as backend

from engine.contract import RAW_MAP, RAW_SCORE
from engine.errors import BackendError

Array = npt.NDArray[Any]

_set_destructor = ctypes.pythonapi.PyCapsule_SetDestructor
_set_destructor.argtypes = (ctypes.py_object, ctypes.c_void_p)

Compute = Callable[[Mapping[str, Any]], Mapping[str, Array]]


def answer(requests: Sequence[Any], compute: Compute) -> list[Any]:
    """Run `compute` once on the inputs of all requests together, and answer each with its rows.

    A batch that fails is tried request by request, so that one bad request fails alone; so is one that lies in a
    device's memory, which NumPy cannot put together.
    """
    if len(requests) > 1 and not all(in_host_memory(tensor) for request in requests for tensor in request.inputs()):
        return [response for request in requests for response in answer([request], compute)]
    try:
        return _answer(requests, compute)
    except Exception as error:  # whatever a model raises is the answer to its request, not the end of the process
        if len(requests) > 1:
            return [response for request in requests for response in answer([request], compute)]
        message = f"{type(error).__name__}: {error}"
        return [backend.InferenceResponse(output_tensors=[], error=backend.TritonError(message))]


def in_host_memory(tensor: Any) -> bool:
    """Whether a tensor lies where NumPy can read it."""
    return bool(tensor.is_cpu())


def host(tensor: Any) -> Array:
    """A tensor in host memory as an array, without a copy."""
    return np.from_dlpack(tensor)


def raw(scores: Array, maps: Array) -> dict[str, Array]:
    """Scores (N,) and maps (N, H, W) as `raw_score` (N, 1) and `raw_map`."""
    return {RAW_SCORE: scores.astype(np.float32)[:, np.newaxis], RAW_MAP: maps}


def _answer(requests: Sequence[Any], compute: Compute) -> list[Any]:
    inputs = [{tensor.name(): tensor for tensor in request.inputs()} for request in requests]
    outputs = compute(inputs[0] if len(inputs) == 1 else _together(inputs))
    responses, start = [], 0
    for given in inputs:
        stop = start + next(iter(given.values())).shape()[0]
        tensors = [_tensor(name, array[start:stop]) for name, array in outputs.items()]
        responses.append(backend.InferenceResponse(output_tensors=tensors))
        start = stop
    return responses


def _together(inputs: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    return {name: np.concatenate([host(given[name]) for given in inputs]) for name in inputs[0]}


def _tensor(name: str, array: Array) -> Any:
    contiguous = np.require(array, requirements=("C", "W"))  # NumPy lends read-only arrays to nobody
    capsule = contiguous.__dlpack__()
    _set_destructor(capsule, None)  # the stub renames what it takes to a name that NumPy's would complain of, each time
    tensor = backend.Tensor.from_dlpack(name, capsule)
    sent = host(tensor).nbytes
    if sent != contiguous.nbytes:
        raise BackendError(f"{name}: {contiguous.nbytes} bytes became {sent} in Triton; NumPy {np.__version__}")
    return tensor
