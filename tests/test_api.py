import subprocess
import sys

import cv2
import numpy as np
import pytest

import engine
from engine.errors import UsageError


@pytest.fixture(scope="module")
def model(tiny):
    with engine.load(tiny.path, backend="onnx", threads=1) as loaded:
        yield loaded


def picture(side=64, spot=None, seed=0):
    image = np.random.default_rng(seed).integers(90, 160, (side, side, 3), dtype=np.uint8)
    if spot is not None:
        image[spot] = 255
    return image


def test_the_public_names_are_these():
    assert engine.__all__ == ["Model", "Region", "Result", "__version__", "load"]
    assert all(getattr(engine, name) is not None for name in engine.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = engine.nothing


def test_importing_the_runtime_brings_no_training_library():
    heavy = ("torch", "trainers", "sklearn")
    code = f"import sys, engine.cli, engine.api; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_arrays_and_files_give_the_same_results_in_order(model, tmp_path):
    images = [picture(seed=i, spot=np.s_[4 * i : 4 * i + 8, :8] if i % 2 else None) for i in range(11)]
    paths = []
    for i, image in enumerate(images):
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        paths.append(path)
    from_arrays, from_files = model.predict(images), model.predict(paths)
    assert [r.raw_score for r in from_arrays] == pytest.approx([r.raw_score for r in from_files], rel=1e-6)
    assert [r.id for r in from_arrays] == [str(i) for i in range(11)]
    assert [r.id for r in from_files] == [str(path) for path in paths]
    assert [r.pred_label for r in from_arrays] == [bool(i % 2) for i in range(11)]


def test_a_result_says_what_the_wire_would(model):
    (result,) = model.predict(picture(side=96, spot=np.s_[24:48, 36:60]))
    assert (result.status, result.model, result.decision, result.pred_label) == ("ok", "tiny@1", "reject", True)
    assert result.pred_score >= 0.5
    assert result.anomaly_map.shape == result.pred_mask.shape == (96, 96)
    x, y, w, h = result.regions[0].bbox
    assert x <= 48 <= x + w
    assert y <= 36 <= y + h
    assert result.scores == {"fyd": result.pred_score}
    assert min(result.timing_ms.values()) >= 0


def test_no_pictures_give_no_results(model):
    assert model.predict([]) == []


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 3), np.float32),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((0, 64, 3), np.uint8),
    ],
)
def test_an_array_of_another_kind_is_refused(model, bad):
    with pytest.raises(UsageError, match=r"picture 1: expected a uint8 array \(H, W, 3\)"):
        model.predict([picture(), bad])


def test_threads_below_none_are_refused(tiny):
    with pytest.raises(UsageError, match="threads: expected 0"):
        engine.load(tiny.path, threads=-1)


def test_a_file_that_is_no_picture_is_refused_by_name(model, tmp_path):
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(UsageError, match=r"text\.png"):
        model.predict(tmp_path / "text.png")
    with pytest.raises(UsageError, match=r"none\.png cannot be read"):
        model.predict(str(tmp_path / "none.png"))


def test_only_a_region_counts(model):
    image = picture(side=96, spot=np.s_[24:48, 60:84])
    left = {"unit": "share", "include": [[[0, 0], [0.5, 0], [0.5, 1], [0, 1]]]}
    whole, seen = (model.predict(image, region=region)[0] for region in (None, left))
    assert (whole.decision, seen.decision, seen.regions) == ("reject", "good", ())
    assert seen.raw_score < whole.raw_score
    np.testing.assert_array_equal(seen.anomaly_map[:, :48], whole.anomaly_map[:, :48])
    assert not seen.anomaly_map[:, 48:].any()
    assert seen.scores == {"fyd": seen.pred_score}
    with pytest.raises(UsageError, match=r"region: .*unknown field `polygon`"):
        model.predict(image, region={"polygon": []})
    with pytest.raises(UsageError, match=r"picture 0: picture: 96 x 96 px, but a polygon .* reaches to x = 200"):
        model.predict(image, region={"include": [[[0, 0], [200, 0], [200, 50]]]})
