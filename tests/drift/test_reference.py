"""The reference that serving reads: of one model, of older bundles, and of ensembles with and without a cascade."""

from __future__ import annotations

import shutil

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from engine import bundle as bundles
from engine.drift import reference
from engine.drift.reference import SIGNALS
from engine.errors import BundleError


@pytest.fixture
def referenced(tiny, tmp_path):
    """The small detector with a file in the place of its reference."""

    def make(columns):
        path = tmp_path / "referenced"
        shutil.copytree(tiny.path, path)
        manifest = bundles.read(path).manifest
        save_file(columns, path / "reference.fp32.safetensors")
        described = bundles.describe(path / "reference.fp32.safetensors", path)
        executable = msgspec.structs.replace(manifest.executables["fp32"], reference=described)
        bundles.write_manifest(path, msgspec.structs.replace(manifest, executables={"fp32": executable}))
        return bundles.read(path)

    return make


def test_signals_come_sorted_with_the_size_they_were_seen_at(referenced):
    columns = {name: np.random.default_rng(i).normal(size=9) for i, name in enumerate(SIGNALS)}
    found = reference.read(referenced(columns), "fp32", None)
    assert found.size == (64, 64)
    for name in SIGNALS:
        np.testing.assert_array_equal(found.signals[name], np.sort(columns[name]))


def test_an_older_bundle_has_none(tiny):
    assert reference.read(bundles.read(tiny.path), "fp32", None) is None


def test_a_file_that_is_no_reference_is_refused(referenced):
    with pytest.raises(BundleError, match=r"reference\.fp32.*not a training reference.*train again"):
        reference.read(referenced({"score": np.zeros(3)}), "fp32", None)
