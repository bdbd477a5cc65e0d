"""One batch's way through a device: a stream, memory for the largest batch, and a recorded graph per batch size.

Pictures are copied to pinned memory and from there to the device. Then network, distances, maps and maxima run as one
CUDA graph, and scores and maps come back. Graphs exist for batch sizes 1, 2, 4, ...: a batch runs in the next larger
one, whose last rows hold pictures of an earlier batch that nobody reads. Every graph has an execution context of its
own, because a context whose shape changes invalidates what was recorded with it; they share their working memory.

Letters: N batch, C channels, H W picture, h w grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.bundle import Bundle
from engine.contract import FEATURES_NAME, GRID_NAME, INPUT_NAME, POSITIONS_NAME, SCORE_NAME, Input, Precision
from engine.errors import BackendError
from engine.maps import operator
from engine.plans.library import Library
from engine.serving.base import RawBatch
from engine.serving.detector import load_gaussian
from engine.serving.head import Head
from engine.types import F32, U8
from kernels import Gaussian
from kernels.cuda.driver import Device
from kernels.cuda.head import MapHead
from kernels.cuda.map import mahalanobis_map
from kernels.cuda.stream import DeviceArray, Graph, Stream

_MAPS, _PEAKS = "maps", "peaks"  # names of what is made on the device, beside the network's outputs


@dataclass(frozen=True, slots=True)
class Model:
    """What all lanes share: TensorRT's engine, the Gaussian, and how distances become a map.

    `least` and `most` are the smallest and the largest batch; `outputs` the shapes of the network's outputs without the
    batch; `runtime` what every execution context is created with.
    """

    device: Device
    library: Library
    engine: Any
    input: Input
    least: int
    most: int
    outputs: dict[str, tuple[int, ...]]
    grid: tuple[int, int]
    gaussian: Gaussian | None
    head: MapHead
    host_head: Head
    runtime: Any

    @classmethod
    def of(cls, bundle: Bundle, precision: Precision, library: Library, engine: Any, device: Device) -> Model:
        """The model of an executable; raises BackendError for a Gaussian that cannot be read."""
        manifest, executable = bundle.manifest, bundle.executable(precision)
        size, sigma_px = manifest.input, manifest.smoothing_sigma_px
        axes = zip(manifest.grid, (size.height, size.width), strict=True)
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        smallest, _, largest = engine.get_tensor_profile_shape(INPUT_NAME, 0)
        file = executable.gaussian
        return cls(
            device=device,
            library=library,
            engine=engine,
            input=size,
            least=int(smallest[0]),
            most=int(largest[0]),
            outputs={name: tuple(engine.get_tensor_shape(name))[1:] for name in names if name != INPUT_NAME},
            grid=manifest.grid,
            gaussian=None if file is None else load_gaussian(bundle.file(file)),
            head=MapHead(*(operator(cells, pixels, sigma_px) for cells, pixels in axes)),
            host_head=Head(manifest, None),
            runtime=_runtime(library, engine),
        )

    @property
    def aligns(self) -> bool:
        """Whether distances are brought back to the picture's frame: on the host, since grids are small."""
        return POSITIONS_NAME in self.outputs

    def context(self) -> Any:
        """A new execution context without working memory."""
        return self.engine.create_execution_context(self.runtime)


def _runtime(library: Library, engine: Any) -> Any:
    """Without working memory, and for TensorRT-RTX: kernels compiled once for all contexts, and before they are needed,
    because a graph keeps those that it was recorded with."""
    module = library.module
    strategy = module.ExecutionContextAllocationStrategy.USER_MANAGED
    if library.name == "tensorrt":
        return strategy
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(strategy)
    config.dynamic_shapes_kernel_specialization_strategy = module.DynamicShapesKernelSpecializationStrategy.EAGER
    config.set_runtime_cache(config.create_runtime_cache())
    return config


class Lane:
    """Runs one batch at a time."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._stream = Stream(model.device)
        size = (model.input.height, model.input.width)
        empty, most = self._stream.empty, model.most
        self._images = empty((most, *size, 3), np.uint8)
        self._outputs = {name: empty((most, *shape), np.float32) for name, shape in model.outputs.items()}
        grid = self._outputs.get(GRID_NAME)
        self._grids = empty((most, *model.grid), np.float32) if grid is None else grid  # (N, h, w)
        self._maps = empty((most, *size), np.float32)  # (N, H, W)
        self._scores = empty((most,), np.float32)
        self._memory = empty((max(int(model.engine.device_memory_size_v2), 1),), np.uint8)
        self._host_images = model.device.pinned((most, *size, 3), np.uint8)
        self._host = {name: model.device.pinned(a.shape, np.float32) for name, a in self._results().items()}
        self._works: dict[int, Work] = {}

    def run(self, images: U8) -> RawBatch:
        """(N, H, W, 3) uint8 RGB pictures, at most `Model.most`."""
        n, model = len(images), self._model
        self._host_images[:n] = images
        with model.device.current():
            self._stream.copy_in(self._host_images[:n], self._images.first(n))
            self._work(batch_of(n, model.least, model.most)).launch()
            for name, array in self._results().items():
                self._stream.copy_out(array.first(n), self._host[name][:n])
            self._stream.wait()
        return self._finish({name: array[:n].copy() for name, array in self._host.items()})

    def close(self) -> None:
        """Give back the stream and its graphs; memory goes with the lane."""
        self._works.clear()
        self._stream.close()

    def _results(self) -> dict[str, DeviceArray]:
        """What comes back to the host: maps and their maxima, or the grids that are still to be aligned."""
        found = {name: self._outputs[name] for name in (SCORE_NAME, POSITIONS_NAME) if name in self._outputs}
        if self._model.aligns:
            return found | {GRID_NAME: self._grids}
        return found | {_MAPS: self._maps, _PEAKS: self._scores}

    def _finish(self, got: dict[str, F32]) -> RawBatch:
        if self._model.aligns:
            return self._model.host_head(got)
        return RawBatch(scores=got.get(SCORE_NAME, got[_PEAKS]).astype(np.float64), maps=got[_MAPS])

    def _work(self, n: int) -> Work:
        if n not in self._works:
            self._works[n] = Work.record(self._stream, self._network(n), lambda: self._after(n))
        return self._works[n]

    def _network(self, n: int) -> Callable[[], None]:
        """Puts the network on the stream for batches of `n`."""
        context = self._model.context()
        context.set_device_memory(self._memory.address, self._memory.size_bytes)
        context.set_input_shape(INPUT_NAME, self._images.first(n).shape)
        for name, array in {INPUT_NAME: self._images, **self._outputs}.items():
            context.set_tensor_address(name, array.address)

        def enqueue() -> None:
            if not context.execute_async_v3(self._stream.handle):
                raise BackendError(f"TensorRT: a batch of {n} does not run: {self._model.library.logger.last_error}")

        return enqueue

    def _after(self, n: int) -> None:
        """Puts on the stream what follows the network: distances, maps, maxima."""
        grids = self._grids.first(n)
        if self._model.gaussian is not None:
            mahalanobis_map(self._outputs[FEATURES_NAME].first(n), self._model.gaussian, grids)
        if not self._model.aligns:
            self._model.head(grids, self._maps.first(n), self._scores.first(n))


@dataclass(frozen=True, slots=True)
class Work:
    """Network and what follows it for one batch size, recorded."""

    graph: Graph
    network: Callable[[], None]  # keeps the execution context

    @classmethod
    def record(cls, stream: Stream, network: Callable[[], None], after: Callable[[], None]) -> Work:
        """Run once, because what is made at the first run (kernels, copies of the model) cannot be recorded; record."""
        network()
        after()
        stream.wait()
        with stream.recording() as graph:
            network()
            after()
        return cls(graph, network)

    def launch(self) -> None:
        """Put it on its stream."""
        self.graph.launch()


def batch_of(n: int, least: int, most: int) -> int:
    """The batch size that `n` pictures run in: the next power of two within the plan's batches."""
    return min(max(1 << (n - 1).bit_length(), least), most)
