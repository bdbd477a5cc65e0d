"""The whole of it: every method's bundle explains a picture, and a defect is where it says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from engine.errors import UsageError
from trainers import registry
from trainers.explain import Options, explain
from trainers.explain.explanation import agreement
from trainers.explain.occlusion import Occlusion
from trainers.progress import RecordedProgress

FEW = Options(max_steps=4, threads=1)


@pytest.mark.parametrize("method", registry.names())
def test_every_method_is_explained(method, trained, ask, notched):
    case = ask(trained(method).bundle, notched)
    large = notched.repeat(2, axis=0).repeat(3, axis=1)
    found = explain(case.bundle, case.served.predict, large, FEW, RecordedProgress())
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    assert document["rebuilt_score"] == pytest.approx(document["raw_score"], rel=1e-3)
    if (place := case.question.place) is not None:  # the middle of the same pixel
        assert document["place"] == [3 * place[0] + 1, 2 * place[1] + 1]
    else:
        assert document["place"] is None
    assert found.image.shape == (128, 192, 3)
    assert found.picture.shape == found.attribution.values.shape == (64, 64, 3)
    assert found.decision.anomaly_map.shape == (128, 192)
    assert found.occlusion.values.shape == (64, 64)
    assert -1 <= found.agreement <= 1


def test_a_spot_is_what_the_small_bundle_points_at(small, spotted):
    found = explain(small.bundle, small.served.predict, spotted, Options(threads=1), RecordedProgress())
    x, y = found.place
    assert (24 <= x < 40, 16 <= y < 32) == (True, True)
    inside = np.abs(found.attribution.values[16:32, 24:40]).sum() / np.abs(found.attribution.values).sum()
    assert inside > 0.6
    assert found.attribution.complete
    assert found.agreement > 0.7
    assert found.cam is None


def test_a_baseline_that_is_no_picture_is_refused(small, spotted):
    with pytest.raises(UsageError, match="--baseline"):
        explain(small.bundle, small.served.predict, spotted, Options(baseline="gone.png"), RecordedProgress())


def test_agreement_is_the_correlation_of_amounts():
    random = np.random.default_rng(0)
    values = np.zeros((32, 32, 3), np.float32)
    values[8:16, 8:16] = random.standard_normal((8, 8, 3))
    here = np.zeros((32, 32), np.float32)
    here[6:18, 6:18] = -1
    assert agreement(values, Occlusion(here, 4, 2)) > 0.7
    assert agreement(values, Occlusion(here[::-1, ::-1].copy(), 4, 2)) < 0.1
    assert agreement(values, Occlusion(np.zeros_like(here), 4, 2)) == 0
    assert agreement(np.zeros_like(values), Occlusion(here, 4, 2)) == 0
