"""A bundle's float32 executable in another precision: its network made again, its thresholds set again.

Other numbers come out of a network in float16 or int8, so nothing that rests on them may be kept: the Gaussian, where
there is one, is fitted again on the new features, and the thresholds are set again on pictures that were held out. That
takes the pictures of the training, and these only: pictures that the model was fitted to, taken for unseen ones, would
give thresholds that are too low. Scores are ONNX Runtime's, of the very graph that a plan is built from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from engine import bundle
from engine.bundle import Bundle
from engine.contract import Calibration, Executable, Manifest, Precision
from engine.errors import DataError
from engine.maps import MapHead
from trainers import manifest
from trainers.calibration import reference
from trainers.calibration.holdout import Split, hold_out
from trainers.dataset import resized
from trainers.dataset.good import TrainingSet, check_training, read_dataset
from trainers.learning import learnt
from trainers.network import gaussian
from trainers.network.exported import Exported
from trainers.network.features import Extractor
from trainers.network.gaussian import Recipe
from trainers.network.halves import halve
from trainers.network.quantise import TENSORRT, quantise, samples
from trainers.progress import Progress

SOURCE: Precision = "fp32"


@dataclass(frozen=True, slots=True)
class Order:
    """What to make of which bundle; `data` are its training pictures, None where the bundle says they are."""

    source: Bundle
    precision: Precision
    data: Path | None
    threads: int


def recalibrate(order: Order, folder: Path, progress: Progress) -> Manifest:
    """Write the files of the new executable into `folder`; returns the manifest of a bundle that has only this one.

    Raises DataError where the pictures are not those of the training, BundleError where the bundle lacks what is
    needed.
    """
    source, document = order.source, order.source.manifest
    data = _training(order)
    pictures = resized.read(data.pictures, document.input.height, progress)
    has_gaussian = source.executable(SOURCE).gaussian is not None
    split = gaussian.split(pictures) if has_gaussian else hold_out(pictures)
    network = folder / f"network.{order.precision}.onnx"
    progress.say(f"{order.precision}:")
    if order.precision == "fp16":
        halve(source.file(source.executable(SOURCE).network), network)
    else:
        quantise(source.file(source.executable(SOURCE).network), network, samples(split.learning), TENSORRT)
    made = (_fitted if has_gaussian else _scored)(order, network, split, progress)
    executables = {order.precision: made}
    versions = manifest.versions()
    return msgspec.structs.replace(
        document, executables=executables, version=manifest.version_of(executables), versions=versions
    )


def _training(order: Order) -> TrainingSet:
    """The pictures that the bundle was trained on, checked to be these."""
    recorded = order.source.manifest.training
    folder = order.data or Path(recorded.path)
    if not folder.exists():
        raise DataError(
            f"{folder}: the pictures that {order.source.path} was trained on are not here; "
            f"{order.precision} needs them for its thresholds: give --data FOLDER"
        )
    data = check_training(read_dataset(folder))
    if data.record.sha256 != recorded.sha256:
        raise DataError(
            f"{folder}: expected the {recorded.n_good} pictures that {order.source.path} was trained on, got "
            f"{data.record.n_good} that differ; thresholds need to know which pictures the model has not seen: "
            f"give --data FOLDER, or train again on these"
        )
    return data


def _fitted(order: Order, network: Path, split: Split, progress: Progress) -> Executable:
    """With a Gaussian fitted again, as in training."""
    folder, recipe = network.parent, Recipe.of(order.source, _target(order))
    fitted = gaussian.fit(Extractor(network, order.threads), split, recipe, progress)
    path = folder / f"gaussian.{order.precision}.safetensors"
    fitted.detector.gaussian.save(path)
    described = bundle.describe(network, folder)
    return Executable(
        network=described,
        calibration=_like_the_old(order, fitted.calibration),
        gaussian=bundle.describe(path, folder),
        reference=reference.write(folder, order.precision, split, fitted.held_out),
    )


def _scored(order: Order, network: Path, split: Split, progress: Progress) -> Executable:
    """With the map that the network itself gives."""
    document = order.source.manifest
    exported = Exported(network, order.threads)
    held_out = learnt.scored(exported, MapHead.of(document), split.held_out, progress)
    return Executable(
        network=bundle.describe(network, network.parent),
        calibration=_like_the_old(order, held_out.calibration(1, _target(order))),
        reference=reference.write(network.parent, order.precision, split, held_out),
    )


def _target(order: Order) -> float:
    return order.source.executable(SOURCE).calibration.image_estimate.target_fpr


def _like_the_old(order: Order, new: Calibration) -> Calibration:
    """With what does not depend on the precision: what the card says of the pictures, and where `review` begins."""
    old = order.source.executable(SOURCE).calibration
    review = old.review
    if review is not None:
        review = new.image.raw(float(old.image.calibrated(np.asarray(review))))
    return msgspec.structs.replace(
        new, image_estimate=old.image_estimate, pixel_estimate=old.pixel_estimate, review=review
    )
