"""The Python API: a bundle as an object that judges pictures, no Redis needed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from engine.bundle import Bundle
from engine.config import Backend, LineRegion, Runtime
from engine.contract import Precision
from engine.decide import Decision, decide, member_scores
from engine.errors import ContractError, DecodeError, UsageError
from engine.images import read_image
from engine.interest import Drawing, View
from engine.serving.base import Predictor
from engine.serving.select import choose_precision, read_and_open
from engine.types import U8, Result

Picture = str | os.PathLike[str] | U8
_BATCH = 8
_REGIONS = 64  # that are kept drawn


class Model:
    """A loaded bundle; `predict` may be called from several threads. Use it as a context manager to close it."""

    def __init__(self, bundle: Bundle, predictor: Predictor, precision: Precision) -> None:
        self.bundle = bundle
        self.predictor = predictor
        self.calibration = bundle.calibration(precision)
        self._members = bundle.calibrations(precision)
        self._batch = 1 if bundle.tiled else _BATCH  # a tiled picture is a batch by itself
        self._drawing = lru_cache(maxsize=_REGIONS)(Drawing)

    def predict(self, images: Picture | Iterable[Picture], region: Mapping[str, Any] | None = None) -> list[Result]:
        """Judge pictures: paths, or uint8 (H, W, 3) RGB arrays; one Result each, in order, map and mask included.

        A single picture may be given without a list. `region` has the keys of a `[[line.region]]` of `engine.toml`,
        such as `{"unit": "share", "ignore": [[[0, 0], [1, 0], [1, 0.2], [0, 0.2]]]}`: only this part counts.
        Raises UsageError naming a file that is unreadable or no picture, an array of another shape or type, or a
        region that is wrong or not in a picture.
        """
        several = [images] if isinstance(images, str | os.PathLike | np.ndarray) else images
        results: list[Result] = []
        iterator = iter(several)
        drawing = None if region is None else self._drawing(_region(region))
        while chunk := list(islice(iterator, self._batch)):
            results.extend(self._predict_batch(chunk, len(results), drawing))
        return results

    def close(self) -> None:
        """Release the model."""
        self.predictor.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _predict_batch(self, pictures: Sequence[Picture], first: int, drawing: Drawing | None) -> Iterator[Result]:
        sheet = self.bundle.sheet
        started = time.perf_counter()
        arrays = [_array(picture, first + i) for i, picture in enumerate(pictures)]
        views = [None if drawing is None else _view(drawing, array, first + i) for i, array in enumerate(arrays)]
        batch = np.stack([sheet.fit(array) for array in arrays])
        decoded = time.perf_counter()
        raw = self.predictor.predict(batch)
        inferred = time.perf_counter()
        timing = {"queue": 0.0, "decode": 1e3 * (decoded - started), "infer": 1e3 * (inferred - decoded)}
        timing["total"] = timing["decode"] + timing["infer"]
        for i, picture in enumerate(pictures):
            name = str(first + i) if isinstance(picture, np.ndarray) else os.fspath(picture)
            members = {member: float(scores[i]) for member, scores in raw.members.items()}
            height, width = arrays[i].shape[:2]
            decision = decide(float(raw.scores[i]), raw.maps[i], self.calibration, (height, width), view=views[i])
            yield self._result(name, decision, members, timing)

    def _result(self, name: str, decision: Decision, members: dict[str, float], timing: dict[str, float]) -> Result:
        manifest = self.bundle.manifest
        return Result(
            frame="",
            id=name,
            camera="",
            ts_ns=0,
            tags={},
            status="ok",
            pred_score=decision.pred_score,
            pred_label=decision.pred_label,
            decision=decision.decision,
            raw_score=decision.raw_score,
            scores=member_scores(members, self._members) or {manifest.method: decision.pred_score},
            regions=decision.regions,
            model=manifest.model,
            timing_ms=timing,
            anomaly_map=decision.anomaly_map,
            pred_mask=decision.pred_mask,
        )


def load(
    path: str | os.PathLike[str],
    *,
    backend: Backend = "auto",
    precision: Precision = "fp32",
    threads: int = 0,
) -> Model:
    """Load a bundle folder.

    `threads` 0 means all cores. Raises BundleError, MissingExtraError, BackendError, or UsageError for threads below
    0, each saying what to do.
    """
    if threads < 0:
        raise UsageError(f"threads: expected 0 (all cores) or more, got {threads}")
    runtime = Runtime(backend=backend, precision=precision, threads=threads)
    bundle, predictor = read_and_open(Path(path), runtime, _BATCH)
    return Model(bundle, predictor, choose_precision(runtime))


def _region(region: Mapping[str, Any]) -> LineRegion:
    try:
        return msgspec.convert(dict(region), LineRegion)
    except msgspec.ValidationError as error:
        raise UsageError(f"region: {error}; docs/operating.md lists its keys") from None


def _view(drawing: Drawing, image: U8, index: int) -> View:
    try:
        return drawing.view((image.shape[0], image.shape[1]))
    except ContractError as error:
        raise UsageError(f"picture {index}: {error}") from None


def _array(picture: Picture, index: int) -> U8:
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise UsageError(
                f"picture {index}: expected a uint8 array (H, W, 3) in RGB, got {picture.dtype} {picture.shape}"
            )
        return picture
    try:
        return read_image(Path(picture))
    except OSError as error:
        raise UsageError(f"picture {index}: {os.fspath(picture)} cannot be read ({error.strerror})") from None
    except DecodeError as error:
        raise UsageError(f"picture {index}: {os.fspath(picture)}: {error}") from None
