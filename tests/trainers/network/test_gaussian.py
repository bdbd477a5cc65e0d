"""Gaussians and their thresholds against float64 computations from the definition, on a small network."""

from dataclasses import replace

import numpy as np
import pytest

import kernels
from engine.errors import UsageError
from trainers.calibration.holdout import HeldOut, Split
from trainers.dataset import resized
from trainers.dataset.good import blocks
from trainers.network import gaussian
from trainers.network.features import Extractor, Features
from trainers.progress import RecordedProgress

RECIPE = gaussian.Recipe(regularisation=0.1, smoothing_sigma_px=2.0, target_fpr=0.05)


@pytest.fixture(scope="module")
def extractor(tiny):
    """Four channels on a grid of 8 x 8."""
    return Extractor(tiny.path / "network.onnx", 1)


@pytest.fixture(scope="module")
def source(pictures):
    return resized.read(list(pictures), 64, RecordedProgress())


@pytest.fixture(scope="module")
def features(extractor, source):
    return extractor.of(source, RecordedProgress())


def fit(extractor, training, held_out, **changes):
    return gaussian.fit(extractor, Split(training, held_out), replace(RECIPE, **changes), RecordedProgress())


def naive(train, test, eps):
    """Float64 distances (n, h, w) of features to the Gaussian of others, from equations 6 and 7."""
    train, test = train.astype(np.float64), test.astype(np.float64)
    out = np.empty((len(test), *test.shape[2:]))
    for i, j in np.ndindex(*test.shape[2:]):
        inverse = np.linalg.inv(np.cov(train[:, :, i, j].T) + np.diag(eps))
        y = test[:, :, i, j] - train[:, :, i, j].mean(0)
        out[:, i, j] = np.sqrt(np.einsum("nc,cd,nd->n", y, inverse, y))
    return out


def test_features_are_the_networks(features, tiny, pictures):
    np.testing.assert_allclose(features.values, tiny.features(pictures), rtol=1e-4, atol=1e-4)
    assert features.positions is None


def test_regularisation_is_a_share_of_each_channels_variance(extractor, source, features):
    fitted = fit(extractor, source, source.subset([]))
    variance = features.values.astype(np.float64).var(axis=0, ddof=1).mean(axis=(1, 2))
    np.testing.assert_allclose(fitted.detector.gaussian.eps, 0.1 * variance + 1e-6, rtol=1e-4)


@pytest.mark.parametrize("n", [4, 30, 40])  # no more pictures than channels; twenty blocks of two lengths; of one
def test_thresholds_rest_on_models_without_the_picture(extractor, source, features, n):
    """Held-out scores equal those of Gaussians fitted from scratch on the other blocks, in float64."""
    fitted = fit(extractor, source.subset(range(n)), source.subset([]))
    values, eps = features.values[:n], fitted.detector.gaussian.eps
    held_out = HeldOut(fitted.detector.head)
    parts = blocks(n, min(20, n))
    for rows in parts:
        held_out.add(naive(np.delete(values, rows, axis=0), values[rows], eps).astype(np.float32))
    want = held_out.calibration(len(parts), 0.05)
    assert fitted.calibration.image_estimate.folds == len(parts)
    assert fitted.calibration.image.threshold == pytest.approx(want.image.threshold, rel=1e-3)
    assert fitted.calibration.pixel.threshold == pytest.approx(want.pixel.threshold, rel=5e-3)


def test_the_final_model_knows_all_pictures(extractor, source, features, pictures):
    """Also after blocks were taken out of the sum and put back."""
    fitted = fit(extractor, source, source.subset([]))
    want = naive(features.values, features.values, fitted.detector.gaussian.eps)
    np.testing.assert_allclose(fitted.detector.distances(features), want, rtol=1e-3)
    scores, maps = fitted.detector.score(pictures[:3])
    np.testing.assert_array_equal(scores, maps.max(axis=(1, 2)))


def test_distance_variance_is_equation_10(extractor, source, features):
    fitted = fit(extractor, source, source.subset([]))
    d = naive(features.values, features.values, fitted.detector.gaussian.eps)
    assert fitted.distance_variance == pytest.approx(((d - d.mean(0)) ** 2).mean(0).mean(), rel=1e-3)


def test_held_out_pictures_give_a_guarantee(extractor, source):
    training, held_out = source.subset(range(20)), source.subset(range(20, 40))
    fitted = fit(extractor, training, held_out, target_fpr=0.1)
    assert fitted.calibration.image_estimate.guarantee
    assert fitted.detector.gaussian.samples == 20
    scores, _ = fitted.detector.score(held_out.take(range(20)))
    # of 21 exchangeable scores 2 may be rejected (2.1 at 10 %): a new one above the second largest of the 20
    assert fitted.calibration.image.threshold == pytest.approx(np.sort(scores)[-2], rel=1e-3)


def test_few_pictures_are_all_trained_on(source):
    split = gaussian.split(source)
    assert (len(split.training), len(split.held_out)) == (40, 0)


def test_of_many_pictures_some_are_held_out(source):
    split = gaussian.split(resized.Resized(source.pixels, np.arange(1000)))
    assert (len(split.training), len(split.held_out)) == (800, 200)


def test_aligned_distances_come_back_to_the_picture():
    grids = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    centres = np.array([-2 / 3, 0, 2 / 3], np.float32)
    x, y = np.meshgrid(centres, centres)
    mirrored = Features(np.zeros((1, 1, 3, 3), np.float32), np.stack([-x, y], axis=-1)[None])
    np.testing.assert_allclose(gaussian.in_picture(grids, mirrored), grids[:, :, ::-1], atol=1e-5)


def test_what_cannot_fit_in_memory_is_refused():
    assert "make a Gaussian of 0.05 GB" in gaussian.check_memory(176, (28, 28), 320)
    with pytest.raises(UsageError, match=r"100000 channels at 56 x 56 .* are free: add --channels \d+"):
        gaussian.check_memory(100_000, (56, 56), 320)


def test_a_channel_that_never_moves_does_no_harm():
    total = kernels.Accumulator(2, 1, 1)
    total.add(np.array([[1.0, 5.0], [3.0, 5.0]], np.float32)[:, :, None, None])
    np.testing.assert_allclose(gaussian.diagonal(total, 0.5), [0.5 * 2, 0.5 * 1e-3 * 1], rtol=1e-2)
