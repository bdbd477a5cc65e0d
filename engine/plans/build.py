"""From an ONNX file to a plan, by either TensorRT.

The network is strongly typed: every operator runs in the precision that the graph says, so that what was calibrated is
what is built. TF32, which would round a float32 product's factors to ten bits, is off for the same reason.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from engine.contract import INPUT_NAME
from engine.errors import BackendError, UsageError
from engine.plans.library import Library

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Profile:
    """How many pictures a plan takes at once, and for how many it is fastest."""

    least: int = 1
    best: int = 8
    most: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.best <= self.most:
            given = f"{self.least},{self.best},{self.most}"
            raise UsageError(f"batch {given}: expected LEAST,BEST,MOST with 1 <= LEAST <= BEST <= MOST")


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What a plan is built for; `version_compatible` makes one that later versions of TensorRT load too."""

    profile: Profile = Profile()
    version_compatible: bool = False


def build(library: Library, network: Path, options: BuildOptions) -> bytes:
    """The plan of an ONNX file.

    Raises BackendError in TensorRT's own words where it cannot parse or build it.
    """
    started_s = time.perf_counter()
    builder = _builder(library)
    flag = library.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    definition = builder.create_network(1 << int(flag))
    parser = library.module.OnnxParser(definition, library.logger)
    if not parser.parse_from_file(str(network)):
        why = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise BackendError(f"{network}: {library.name} {library.version} cannot parse it: {why}")
    config = _config(library, builder, definition, options)
    cache = _TimingCache(library, config)
    plan = builder.build_serialized_network(definition, config)
    if plan is None:
        raise BackendError(f"{network}: {library.name} {library.version} cannot build it: {library.logger.last_error}")
    cache.keep(config)
    log.info(
        "%s: built by %s %s in %.0f s", network.name, library.name, library.version, time.perf_counter() - started_s
    )
    return bytes(plan)


def _builder(library: Library) -> Any:
    try:
        return library.module.Builder(library.logger)
    except TypeError as error:  # what its factory raises when it gives nothing: full TensorRT without a device
        raise BackendError(
            f"{library.name} {library.version} cannot build here ({library.logger.last_error or error}); "
            f"it needs an NVIDIA GPU and driver, or tensorrt-rtx, which builds without"
        ) from error


def _config(library: Library, builder: Any, definition: Any, options: BuildOptions) -> Any:
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    _, *picture = definition.get_input(0).shape  # H, W, 3
    sizes = (options.profile.least, options.profile.best, options.profile.most)
    profile.set_shape(INPUT_NAME, *((n, *picture) for n in sizes))
    config.add_optimization_profile(profile)
    flags = library.module.BuilderFlag
    config.clear_flag(flags.TF32)
    if options.version_compatible:
        if library.name == "tensorrt_rtx":
            raise UsageError("--version-compatible: needs full TensorRT (pip install tensorrt); this is tensorrt_rtx")
        config.set_flag(flags.VERSION_COMPATIBLE)
    return config


class _TimingCache:
    """What full TensorRT measured of its kernels, kept between builds; TensorRT-RTX measures nothing."""

    def __init__(self, library: Library, config: Any) -> None:
        self._used = library.name == "tensorrt"
        if not self._used:
            return
        folder = Path(platformdirs.user_cache_dir("anomaly-engine")) / "tensorrt"
        self._path = folder / f"timing-{library.version}.cache"
        known = self._path.read_bytes() if self._path.is_file() else b""
        if not config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False):
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)  # of another device

    def keep(self, config: Any) -> None:
        """Write it back; a cache that cannot be written costs time at the next build only."""
        if not self._used:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new = self._path.with_suffix(f".{os.getpid()}")
            new.write_bytes(bytes(config.get_timing_cache().serialize()))
            new.replace(self._path)
        except OSError as error:
            log.warning("%s: the timing cache cannot be kept (%s)", self._path, error)
