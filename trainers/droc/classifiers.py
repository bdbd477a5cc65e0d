"""The one-class classifiers of stage two as torch computes them: features (K, D) to scores (K,), high is anomalous.

Each is a handful of constants that `droc.fit` takes from scikit-learn, and gives the scores that scikit-learn gives.
Letters: K features to judge, D numbers each, S features that a classifier keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Classifier(nn.Module):
    """Base: its constants are buffers, by the `names` of each kind."""

    names: ClassVar[tuple[str, ...]]

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name in self.names:
            self.register_buffer(name, values[name].to(torch.float32))

    def forward(self, features: Tensor) -> Tensor:
        """(K, D) -> (K,)."""
        raise NotImplementedError


class GaussianDensity(Classifier):
    """GDE: the squared Mahalanobis distance |(f - mean) whitening|^2, which orders as the Gaussian's density does."""

    names = "mean", "whitening"  # (D,), (D, D)
    mean: Tensor
    whitening: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """See `Classifier.forward`."""
        return ((features - self.mean) @ self.whitening).square().sum(dim=1)


class OnSphere(Classifier):
    """Base of those that compare f at unit length with `kept` features (S, D), which are stored less their `centre`.

    Without that the features' common part would cancel in float32: nonnegative ones often point nearly the same way.
    """

    kept: Tensor
    centre: Tensor

    def squared_distances(self, features: Tensor) -> Tensor:
        """(K, D) -> (K, S)."""
        f = F.normalize(features, dim=1) - self.centre
        lengths = f.square().sum(dim=1, keepdim=True) + self.kept.square().sum(dim=1)
        return lengths - 2 * f @ self.kept.T


class KernelDensity(OnSphere):
    """KDE on the sphere: -(1 / gamma) log mean_i exp(-gamma |f - f_i|^2), f of unit length."""

    names = "kept", "centre", "gamma"  # (S, D), (D,), ()
    gamma: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """See `Classifier.forward`."""
        distance = self.squared_distances(features)
        nearest = distance.amin(dim=1, keepdim=True)  # taken out, so that no exponential is zero in all S
        near = torch.exp(self.gamma * (nearest - distance)).mean(dim=1)
        return nearest[:, 0] - torch.log(near) / self.gamma


class KernelSvm(OnSphere):
    """OC-SVM with an RBF kernel on the sphere: 1 - sum_i share_i exp(-gamma |f - f_i|^2), minus its decision in units
    of its offset: 0 on the boundary, 1 far away.
    """

    names = "kept", "centre", "shares", "gamma"  # (S, D), (D,), (S,), ()
    shares: Tensor
    gamma: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """See `Classifier.forward`."""
        return 1 - torch.exp(-self.gamma * self.squared_distances(features)) @ self.shares


class LinearSvm(Classifier):
    """OC-SVM with a linear kernel: offset - f . normal, minus its decision by the sum of its coefficients."""

    names = "normal", "offset"  # (D,), ()
    normal: Tensor
    offset: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """See `Classifier.forward`."""
        return self.offset - features @ self.normal


class NearestCosine(OnSphere):
    """1-NN: one minus the cosine to the nearest of the kept features, half a squared distance."""

    names = "kept", "centre"  # (S, D), (D,)

    def forward(self, features: Tensor) -> Tensor:
        """See `Classifier.forward`."""
        return self.squared_distances(features).amin(dim=1) / 2


KINDS: dict[str, type[Classifier]] = {
    "gde": GaussianDensity,
    "kde": KernelDensity,
    "oc-svm": KernelSvm,
    "oc-svm-linear": LinearSvm,
    "cosine": NearestCosine,
}
