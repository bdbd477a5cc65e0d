"""The classifiers as torch and ONNX compute them, against scikit-learn's own scores in float64."""

import numpy as np
import pytest
import torch
from sklearn.covariance import ShrunkCovariance
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity, NearestNeighbors
from sklearn.svm import OneClassSVM

from trainers.droc.classifiers import KINDS
from trainers.droc.fit import NU, SHRINKAGE, fit, gamma_of, normalised

D = 24


@pytest.fixture(scope="module")
def features():
    """Correlated, of very different variances, one number that never varies, away from the origin."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(D, D)) * np.geomspace(1, 0.01, D)
    found = np.maximum(random.normal(size=(600, D)) @ mixing + 1, 0)
    found[:, 3] = 0
    return found


@pytest.fixture(scope="module")
def judged(features):
    """Some of the training features, some moved away from them."""
    moved = features[:40] + np.random.default_rng(1).normal(size=(40, D)) * np.geomspace(0.01, 3, 40)[:, None]
    return np.concatenate([features[40:60], moved])


def scores(kind, features, judged):
    with torch.no_grad():
        return fit(kind, features)(torch.from_numpy(judged).float()).double().numpy()


def test_gde_is_the_squared_mahalanobis_distance(features, judged):
    found = ShrunkCovariance(shrinkage=SHRINKAGE).fit(features)
    np.testing.assert_allclose(scores("gde", features, judged), found.mahalanobis(judged), rtol=1e-4)


def test_gde_orders_as_a_gaussian_s_log_density(features, judged):
    """-2 log p = distance + D log 2 pi + log |covariance|."""
    found = ShrunkCovariance(shrinkage=SHRINKAGE).fit(features)
    mixture = GaussianMixture(1)
    mixture.weights_, mixture.means_ = np.ones(1), found.location_[None]
    mixture.precisions_cholesky_ = np.linalg.cholesky(found.precision_)[None]
    constant = D * np.log(2 * np.pi) + np.linalg.slogdet(found.covariance_)[1]
    want = -2 * mixture.score_samples(judged) - constant
    np.testing.assert_allclose(scores("gde", features, judged), want, rtol=1e-4, atol=1e-4)


def test_kde_is_the_log_density_of_unit_features(features, judged):
    """But for the factor gamma and the kernel's normaliser, (gamma / pi)^(D / 2)."""
    unit = normalised(features)
    gamma = gamma_of(unit)
    found = KernelDensity(bandwidth=1 / np.sqrt(2 * gamma)).fit(unit)
    log_kernels = found.score_samples(normalised(judged)) - D / 2 * np.log(gamma / np.pi)
    np.testing.assert_allclose(scores("kde", features, judged), -log_kernels / gamma, atol=1e-5)


def test_kde_is_the_official_code_s_score(features, judged):
    """-(1 / gamma) logsumexp(2 gamma cos), but for constants."""
    unit, gamma = normalised(features), gamma_of(normalised(features))
    official = -np.log(np.exp(2 * gamma * (normalised(judged) @ unit.T - 1)).sum(axis=1)) / gamma
    found = scores("kde", features, judged)
    np.testing.assert_allclose(found - found[0], official - official[0], atol=1e-5)


def test_kde_far_from_all_features_is_finite():
    features = normalised(np.random.default_rng(0).normal(1, 1e-4, (50, D)))
    far = scores("kde", features, -features[:3])
    np.testing.assert_allclose(far, 4, atol=1e-3)  # the squared distance to the other side


def test_the_kernel_oc_svm_is_minus_its_decision_in_units_of_its_offset(features, judged):
    unit = normalised(features)
    found = OneClassSVM(kernel="rbf", gamma=gamma_of(unit), nu=NU).fit(unit)
    want = -found.decision_function(normalised(judged)) / found.offset_
    np.testing.assert_allclose(scores("oc-svm", features, judged), want, atol=1e-5, rtol=1e-5)
    assert np.ptp(want) > 0.9


def test_the_linear_oc_svm_is_minus_its_decision_by_the_sum_of_its_coefficients(features, judged):
    found = OneClassSVM(kernel="linear", nu=NU).fit(features)
    want = -found.decision_function(judged) / found.dual_coef_.sum()
    np.testing.assert_allclose(scores("oc-svm-linear", features, judged), want, atol=1e-5, rtol=1e-5)
    assert np.ptp(want) > 0.1


def test_cosine_is_the_distance_of_the_nearest_neighbour(features, judged):
    found = NearestNeighbors(n_neighbors=1, metric="cosine").fit(features)
    np.testing.assert_allclose(scores("cosine", features, judged), found.kneighbors(judged)[0][:, 0], atol=1e-5)


def test_the_kernel_s_width_is_the_official_code_s(features):
    unit = normalised(features)
    assert gamma_of(unit) == pytest.approx(10 / (np.var(unit) * D))
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1)


@pytest.mark.parametrize("kind", KINDS)
def test_moved_features_score_high(kind, features, judged):
    found = scores(kind, features, judged)
    if kind != "oc-svm-linear":  # a plane through the cloud's side sees some directions only
        assert found[-10:].min() > np.median(found[:20])
    assert found.shape == (60,)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_differentiable(kind, features, judged):
    x = torch.from_numpy(judged).float().requires_grad_()
    fit(kind, features)(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0
