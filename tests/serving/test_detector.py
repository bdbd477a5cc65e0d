"""The same raw score from every backend, against a float64 computation of the whole chain."""

from dataclasses import replace

import cv2
import msgspec
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from engine import bundle as bundles
from engine.config import Runtime
from engine.errors import BackendError, BundleError, UsageError
from engine.serving import select
from engine.serving.detector import Detector
from engine.serving.network import FunctionNetwork
from engine.serving.select import choose_backend, local_backends, open_local, open_predictor
from engine.serving.timing import frames_per_s


def reference(train, test, eps=0.01, sigma_px=2.0):
    """Mahalanobis by the definition, bilinear upsampling by cv2, smoothing by scipy, in float64."""
    mean = train.mean(axis=0)
    grids = np.empty((len(test), 8, 8))
    for i in range(8):
        for j in range(8):
            covariance = np.cov(train[:, :, i, j].T) + eps * np.eye(train.shape[1])
            y = test[:, :, i, j] - mean[:, i, j]
            grids[:, i, j] = np.sqrt(np.einsum("nc,cd,nd->n", y, np.linalg.inv(covariance), y))
    upsampled = [cv2.resize(grid, (64, 64), interpolation=cv2.INTER_LINEAR) for grid in grids]
    return np.stack([gaussian_filter(m, sigma_px, mode="reflect", radius=8) for m in upsampled])


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize("n", [1, 3, 8])
def test_every_backend_gives_the_definition_s_scores_and_maps(tiny, pictures, backend, n):
    images = np.random.default_rng(2).integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)
    predictor = open_local(bundles.read(tiny.path), backend, "fp32", threads=1)
    raw = predictor.predict(images)
    expected = reference(tiny.features(pictures), tiny.features(images))
    np.testing.assert_allclose(raw.maps, expected, rtol=1e-3)
    np.testing.assert_allclose(raw.scores, expected.max(axis=(1, 2)), rtol=1e-3)
    assert (predictor.backend, predictor.precision) == (backend, "fp32")
    predictor.close()


def test_auto_measures_each_backend_once_and_takes_the_fastest(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle = bundles.read(tiny.path)
    first = choose_backend(bundle, Runtime(threads=1), batch_size=2)
    assert set(first.frames_per_s) == set(local_backends()) == {"onnx", "openvino"}
    assert first.backend == max(first.frames_per_s, key=lambda name: first.frames_per_s[name])
    assert all(rate > 0 for rate in first.frames_per_s.values())
    (cache,) = (tmp_path / "anomaly-engine" / "backends").iterdir()
    assert choose_backend(bundle, Runtime(threads=1), batch_size=2) == first
    cache.write_text('{"onnx": 1.0, "openvino": 2.0}')
    assert choose_backend(bundle, Runtime(threads=1), batch_size=2).backend == "openvino"
    cache.write_text("damaged")
    assert choose_backend(bundle, Runtime(threads=1), batch_size=2).frames_per_s != {}


def test_what_cannot_run_is_refused_with_a_clear_line(tiny, tmp_path):
    bundle = bundles.read(tiny.path)
    with pytest.raises(UsageError, match="'triton'"):
        choose_backend(bundle, Runtime(backend="triton"), batch_size=2)
    with pytest.raises(BundleError, match="no int8 executable"):
        open_predictor(bundle, Runtime(backend="onnx", precision="int8"), batch_size=2)
    for backend in ("onnx", "openvino"):
        predictor = open_local(bundle, backend, "fp32", threads=1)
        with pytest.raises(BackendError, match="failed on a batch of shape"):
            predictor.predict(np.zeros((1, 32, 32, 3), np.uint8))


def test_a_network_that_is_none_is_refused(tmp_path):
    (tmp_path / "network.onnx").write_bytes(b"no network")
    for network in (select.OnnxNetwork, select.OpenvinoNetwork):
        with pytest.raises(BackendError, match=r"network\.onnx"):
            network(tmp_path / "network.onnx", 1)


def test_timing_counts_frames_not_batches(tiny):
    predictor = open_local(bundles.read(tiny.path), "onnx", "fp32", threads=1)
    images = np.zeros((4, 64, 64, 3), np.uint8)
    assert frames_per_s(predictor, images, budget_s=0.05) > 4


def test_a_network_s_own_scores_take_the_place_of_the_map_s_maximum(tiny, pictures):
    grids = np.random.default_rng(0).random((2, 8, 8), np.float32)
    bundle = bundles.read(tiny.path)
    executable = bundle.executable("fp32")
    executables = {"fp32": msgspec.structs.replace(executable, gaussian=None)}
    plain = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, executables=executables))
    outputs = {"score": np.array([7, 8], np.float32), "grid": grids}
    with_scores = Detector(plain, "fp32", FunctionNetwork(lambda images: outputs)).predict(pictures[:2])
    without = Detector(plain, "fp32", FunctionNetwork(lambda images: {"grid": grids})).predict(pictures[:2])
    assert with_scores.scores.tolist() == [7.0, 8.0]
    assert with_scores.scores.dtype == np.float64
    np.testing.assert_array_equal(with_scores.maps, without.maps)
    np.testing.assert_array_equal(without.scores, without.maps.max(axis=(1, 2)))
