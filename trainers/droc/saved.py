"""A trained detector as torch modules again, out of its bundle: to fit another classifier to its representation, or to
differentiate its score (`load(bundle).score`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from engine import bundle
from engine.errors import UsageError
from trainers import backbones
from trainers.droc.classifiers import KINDS, Classifier
from trainers.droc.detector import Detector, RotationSoftmax, Scored
from trainers.droc.head import RotationHead
from trainers.droc.network import ImageNet, PaddingFree, ResNet18, Trunk
from trainers.droc.pretext import Representation, make_head
from trainers.droc.settings import Settings

METHOD = "droc"
_REPRESENTATION, _CLASSIFIER = "representation.", "classifier."


def load(path: Path) -> Detector:
    """The detector of a bundle, in evaluation mode. Raises UsageError where it is not a bundle of this method."""
    settings, tensors = _read(path)
    model = _representation(settings, tensors)
    classifier = None
    if settings.classifier != "rotation-softmax":
        classifier = KINDS[settings.classifier](_under(_CLASSIFIER, tensors))
    return detector(model, classifier, settings)


def load_representation(path: Path) -> tuple[Settings, Representation]:
    """f and g of a bundle, and how they were made. Raises UsageError where it is not a bundle of this method."""
    settings, tensors = _read(path)
    return settings, _representation(settings, tensors)


def detector(model: Representation, classifier: Classifier | None, settings: Settings) -> Detector:
    """The detector of both stages; without a classifier that of rotation probabilities."""
    if classifier is not None:
        return Detector(Scored(model.trunk, classifier), settings.side_px).eval()
    if not isinstance(model.head, RotationHead):
        raise TypeError("expected the head of rotation prediction")
    return Detector(RotationSoftmax(model.trunk, model.head), settings.side_px).eval()


def weights(model: Representation, classifier: Classifier | None) -> dict[str, Tensor]:
    """What `load` needs beside the settings, by name."""
    kept = {_REPRESENTATION + name: value for name, value in model.state_dict().items()}
    constants = {} if classifier is None else classifier.state_dict()
    return kept | {_CLASSIFIER + name: value for name, value in constants.items()}


def make_representation(settings: Settings, trunk: Trunk) -> Representation:
    """f with a new g, random as torch's generator stands."""
    return Representation(trunk, make_head(trunk.features, settings)).eval()


def make_trunk(settings: Settings) -> Trunk:
    """f, random as torch's generator stands; of an ImageNet backbone too."""
    if settings.pretext == "imagenet":
        backbone = backbones.build(settings.backbone.partition("=")[0], settings.patch_px)
        return ImageNet(backbone, settings.patch_px, settings.stride_px)
    if settings.kind == "padding-free":
        return PaddingFree(settings.patch_px, settings.channel_share)
    return ResNet18(settings.patch_px, settings.stride_px, settings.channel_share)


def _read(path: Path) -> tuple[Settings, dict[str, Tensor]]:
    found = bundle.read(path)
    kept = found.manifest.weights
    if found.manifest.method != METHOD or kept is None:
        raise UsageError(f"{path}: expected a bundle of --method {METHOD}, got one of {found.manifest.method}")
    return Settings.recorded(found.manifest.settings), load_file(found.file(kept))


def _representation(settings: Settings, tensors: Mapping[str, Tensor]) -> Representation:
    model = make_representation(settings, make_trunk(settings))
    model.load_state_dict(_under(_REPRESENTATION, tensors))
    return model


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
