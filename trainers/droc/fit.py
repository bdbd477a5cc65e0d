"""Stage two: one-class classifiers fitted by scikit-learn, and their constants for `droc.classifiers`.

Bandwidths and regularisation are the official code's. Letters: K features, D numbers each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from sklearn.covariance import ShrunkCovariance
from sklearn.svm import OneClassSVM
from torch import Tensor

from engine.types import F64
from trainers.droc.classifiers import KINDS, Classifier

NU = 0.5  # of OC-SVM: the share of the training features that may lie outside
SHRINKAGE = 1e-3  # of GDE towards a sphere, not in the paper: f may have numbers that never vary
_WIDTH = 10.0  # gamma is this over the variance of all D numbers


def fit(kind: str, features: F64) -> Classifier:
    """The classifier of a kind, fitted to (K, D) features."""
    return KINDS[kind](_FITS[kind](features))


def gamma_of(unit: F64) -> float:
    """Of the kernel exp(-gamma |f - f'|^2): 10 / (variance * D)."""
    variance = unit.var() * unit.shape[1]
    return _WIDTH / float(max(variance, 1e-12))


def normalised(features: F64) -> F64:
    """Rows of unit length."""
    length: F64 = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(length, 1e-12))


def _gaussian(features: F64) -> dict[str, Tensor]:
    found = ShrunkCovariance(shrinkage=SHRINKAGE).fit(features)
    return _tensors({"mean": found.location_, "whitening": np.linalg.cholesky(found.precision_)})


def _kernel_density(features: F64) -> dict[str, Tensor]:
    unit = normalised(features)
    return _tensors(_kept(unit) | {"gamma": np.asarray(gamma_of(unit))})


def _kernel_svm(features: F64) -> dict[str, Tensor]:
    unit = normalised(features)
    gamma = gamma_of(unit)
    found = OneClassSVM(kernel="rbf", gamma=gamma, nu=NU).fit(unit)
    shares = found.dual_coef_[0] / found.offset_[0]
    return _tensors(_kept(found.support_vectors_) | {"shares": shares, "gamma": np.asarray(gamma)})


def _linear_svm(features: F64) -> dict[str, Tensor]:
    found = OneClassSVM(kernel="linear", nu=NU).fit(features)
    total = found.dual_coef_.sum()
    return _tensors({"normal": found.coef_[0] / total, "offset": found.offset_[0] / total})


def _nearest_cosine(features: F64) -> dict[str, Tensor]:
    return _tensors(_kept(normalised(features)))


def _kept(unit: F64) -> dict[str, F64]:
    """See `classifiers.OnSphere`."""
    centre: F64 = unit.mean(axis=0)
    return {"kept": unit - centre, "centre": centre}


def _tensors(values: Mapping[str, F64]) -> dict[str, Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


_FITS: dict[str, Callable[[F64], dict[str, Tensor]]] = {
    "gde": _gaussian,
    "kde": _kernel_density,
    "oc-svm": _kernel_svm,
    "oc-svm-linear": _linear_svm,
    "cosine": _nearest_cosine,
}
