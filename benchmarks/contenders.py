"""Ways to compute a Mahalanobis map, ours and others', behind one interface that times a call.

Letters: K training pictures, N batch, C channels, h w grid, P = h * w positions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort
import torch
from onnx import TensorProto, helper

import kernels
from engine.bench.worker import Worker
from engine.types import F32

EPS = 0.01
PEER = Path(__file__).parent / "peers" / "anomalib"
_PAUSE_S = 0.2  # the threads of torch, ONNX Runtime and OpenBLAS go on spinning for a while
_EVICTED_BYTES = 128 << 20  # more than any cache here; in service the network runs between two maps
_CHUNK = 64  # positions at a time
_OPSET = 18


class Contender(Protocol):
    """A way to compute the map, and the bytes of the model that it reads."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def model_bytes(self) -> int:
        """The size of mean and factor."""

    def distances(self, features: F32) -> F32:
        """(N, C, h, w) -> (N, h, w)."""

    def seconds(self, features: F32) -> float:
        """What one call takes on a processor that is awake, with nothing of the model left in its caches."""


@dataclass(frozen=True, slots=True)
class Local:
    """A contender in this process."""

    name: str
    model_bytes: int
    run: Callable[[F32], F32]

    def distances(self, features: F32) -> F32:
        """See `Contender.distances`."""
        return self.run(features)

    def seconds(self, features: F32) -> float:
        """See `Contender.seconds`."""
        time.sleep(_PAUSE_S)
        self.run(features)  # wakes the cores and maps the pages
        _evict()
        started = time.perf_counter()
        self.run(features)
        return time.perf_counter() - started


class AnomalibStep:
    """anomalib's `compute_distance`, in its own environment, on one batch; close it afterwards."""

    name = "anomalib's step"

    def __init__(self, python: str, folder: Path, model: Plain, features: F32, threads: int) -> None:
        self.model_bytes = model.inverse.nbytes
        self._out = folder / "distances.npy"
        arrays = folder / "arrays.npz"
        np.savez(arrays, features=features, mean=model.mean.T, inverse=model.inverse)
        arguments = [str(arrays.resolve()), str(threads), str(_EVICTED_BYTES)]
        self._worker = Worker([python, str(PEER / "step.py"), *arguments], folder)

    def distances(self, features: F32) -> F32:
        """See `Contender.distances`; `features` are those it was made with."""
        self._worker.measure(out=str(self._out.resolve()))
        found: F32 = np.load(self._out)
        return found

    def seconds(self, features: F32) -> float:
        """See `Contender.seconds`."""
        time.sleep(_PAUSE_S)
        return float(self._worker.measure(out="")["seconds"])

    def close(self) -> None:
        """End its process."""
        self._worker.close()


@dataclass(frozen=True, slots=True)
class Plain:
    """A Gaussian as others keep it: mean (P, C), inverse Cholesky factor (P, C, C), inverse covariance (P, C, C)."""

    mean: F32
    root: F32
    inverse: F32


def _evict() -> None:
    """Fill the caches with something else."""
    np.ones(_EVICTED_BYTES // 8)


def fit_plain(train: F32) -> Plain:
    """The Gaussian of pictures (K, C, h, w) with S + EPS I."""
    samples, channels, h, w = train.shape
    mean = train.mean(axis=0).reshape(channels, -1).T.copy()  # (P, C)
    root = np.empty((h * w, channels, channels), np.float32)
    inverse = np.empty_like(root)
    for p in range(0, h * w, _CHUNK):
        x = torch.from_numpy(train.reshape(samples, channels, -1)[:, :, p : p + _CHUNK]).permute(2, 0, 1)  # (p, K, C)
        x = x - torch.from_numpy(mean[p : p + _CHUNK, None])
        sigma = x.transpose(1, 2) @ x / (samples - 1) + EPS * torch.eye(channels)
        factor = torch.linalg.solve_triangular(torch.linalg.cholesky(sigma), torch.eye(channels), upper=False)
        root[p : p + _CHUNK] = factor
        inverse[p : p + _CHUNK] = factor.transpose(1, 2) @ factor
    return Plain(mean, root, inverse)


def ours(train: F32, threads: int) -> list[Local]:
    """The CPU kernel with each kind of factor."""
    triangular = kernels.fit(train, EPS, factorisation="triangular", threads=threads)
    models = {
        "kernel": triangular,
        "kernel, bfloat16 factor": triangular.astype("bfloat16"),
        "kernel, float16 factor": triangular.astype("float16"),
        "kernel, rank 64": kernels.fit(train, EPS, rank=min(64, train.shape[1]), threads=threads),
    }

    def contender(name: str, model: kernels.Gaussian) -> Local:
        return Local(name, model.nbytes, lambda x: kernels.mahalanobis_map(x, model, threads=threads))

    return [contender(name, model) for name, model in models.items()]


def others(model: Plain, grid: tuple[int, int], threads: int) -> list[Local]:
    """The Cholesky factor's product by torch and ONNX Runtime, and the quadratic form by NumPy, as is usual."""
    root, mean = torch.from_numpy(model.root), torch.from_numpy(model.mean)
    session, options = _onnx_map(threads), ort.RunOptions()

    def bmm(features: F32) -> F32:
        y = torch.from_numpy(features).flatten(2).permute(2, 1, 0) - mean[:, :, None]  # (P, C, N)
        found: F32 = torch.bmm(root, y).square_().sum(1).sqrt_().T.reshape(-1, *grid).numpy()
        return found

    def onnx(features: F32) -> F32:
        x = features.reshape(*features.shape[:2], -1)  # (N, C, P)
        found: F32 = session.run(None, {"x": x, "mean": model.mean, "root": model.root}, options)[0].T
        return found.reshape(-1, *grid)

    def einsum(features: F32) -> F32:
        y = features.reshape(*features.shape[:2], -1).transpose(2, 0, 1) - model.mean[:, None]  # (P, N, C)
        product = np.einsum("pnc,pcd->pnd", y, model.inverse, optimize=True)
        found: F32 = np.sqrt(np.einsum("pnd,pnd->np", product, y)).reshape(-1, *grid)
        return found

    return [
        Local("torch.bmm", model.root.nbytes, bmm),
        Local("ONNX Runtime MatMul", model.root.nbytes, onnx),
        Local("NumPy einsum", model.inverse.nbytes, einsum),
    ]


def _onnx_map(threads: int) -> ort.InferenceSession:
    """x (N, C, P), mean (P, C), root (P, C, C) -> distances (P, N)."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["columns"], perm=[2, 1, 0]),  # (P, C, N)
        helper.make_node("Unsqueeze", ["mean", "last"], ["means"]),
        helper.make_node("Sub", ["columns", "means"], ["y"]),
        helper.make_node("MatMul", ["root", "y"], ["z"]),
        helper.make_node("ReduceSumSquare", ["z", "middle"], ["squares"], keepdims=0),
        helper.make_node("Sqrt", ["squares"], ["distances"]),
    ]
    shapes = {"x": ["N", "C", "P"], "mean": ["P", "C"], "root": ["P", "C", "C"]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    outputs = [helper.make_tensor_value_info("distances", TensorProto.FLOAT, ["P", "N"])]
    axes = [helper.make_tensor(name, TensorProto.INT64, [1], [axis]) for name, axis in (("last", 2), ("middle", 1))]
    graph = helper.make_graph(nodes, "map", inputs, outputs, axes)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
