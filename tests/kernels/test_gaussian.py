"""The model: files, storage formats, and refusal of what does not fit together."""

from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import kernels
from kernels.storage import encode

FORMS = ["triangular", "low_rank"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("rank", [None, 4])
def test_a_file_gives_the_same_model(world, tmp_path, form, storage, rank):
    w = world(9, grid=(20, 21), samples=30)
    rank = rank if form == "low_rank" else None
    model = kernels.fit(w.train, np.linspace(0.5, 1, 9), factorisation=form, storage=storage, rank=rank)
    model.save(tmp_path / "g.safetensors")
    read = kernels.Gaussian.load(tmp_path / "g.safetensors")
    assert np.array_equal(kernels.mahalanobis_map(w.test, read), kernels.mahalanobis_map(w.test, model))
    for field in ("storage", "samples", "truncation", "rank", "grid", "channels", "nbytes", "factorisation"):
        assert getattr(read, field) == getattr(model, field)
    assert np.array_equal(read.eps, model.eps)
    assert read.factor.ctypes.data % 64 == 0


def test_16_bit_storage_halves_the_factor(world):
    model = kernels.fit(world(9).train, 0.5)
    small = model.astype("bfloat16")
    assert model.nbytes - small.nbytes == small.factor.nbytes == model.factor.nbytes // 2
    back = small.astype("float32")
    assert np.array_equal(back.astype("bfloat16").factor, small.factor)


@pytest.mark.parametrize(("storage", "dropped"), [("bfloat16", 16), ("float16", 13)])
def test_rounding_to_16_bits_is_to_nearest_even(storage, dropped):
    rng = np.random.default_rng(0)
    bits = (rng.integers(-64, 64, 1000) + (120 << 7) << 16).astype(np.uint32)  # around 2^-7, in steps of bfloat16
    ties = bits | np.uint32(1 << (dropped - 1))
    values = np.concatenate([bits, ties, ties + 1, ties - 1]).view(np.float32)
    dtype = ml_dtypes.bfloat16 if storage == "bfloat16" else np.float16
    assert np.array_equal(encode(values, storage), values.astype(dtype).view(np.uint16))


def test_float16_refuses_what_it_cannot_hold(world):
    w = world(4)
    model = kernels.fit(w.train * np.float32(1e-6), 1e-14)
    with pytest.raises(kernels.KernelError, match=r"float16 ends at 65504, got .*; use bfloat16"):
        model.astype("float16")
    assert np.isfinite(kernels.mahalanobis_map(w.test, model.astype("bfloat16"))).all()


def test_equal_models_are_equal_files(world, tmp_path):
    model = kernels.fit(world(6).train, 0.5)
    for i in range(8):  # safetensors alone orders its metadata at random
        model.save(tmp_path / str(i))
    assert len({(tmp_path / str(i)).read_bytes() for i in range(8)}) == 1


def rewrite(path, change, **header):
    """The file at `path` with its tensors changed."""
    tensors = load_file(path)
    change(tensors)
    facts = {"format": "mahalanobis-gaussian", "version": "1", "facts": '{"storage": "float32", "samples": 40}'}
    save_file(tensors, path, metadata=facts | header)


@pytest.mark.parametrize(
    ("change", "header", "said"),
    [
        (lambda t: None, {"version": "2"}, "expected format mahalanobis-gaussian version 1, got .* version 2"),
        (lambda t: None, {"format": "other"}, "expected format mahalanobis-gaussian"),
        (lambda t: None, {"facts": "{"}, "not a readable model"),
        (lambda t: None, {"facts": '{"storage": "int4", "samples": 4}'}, "storage: expected one of"),
        (lambda t: None, {"facts": '{"storage": "float32", "samples": 4, "x": 1}'}, "not a readable model"),
        (lambda t: t.pop("mean"), {}, "not a readable model"),
        (lambda t: t.pop("factor"), {}, "not a readable model"),
        (lambda t: t.update(factor=t["factor"][:-1].copy()), {}, r"factor: expected float32 \(15, "),
        (lambda t: t.update(mean=t["mean"].astype(np.float64)), {}, "mean: expected float32"),
        (lambda t: t.update(weights=np.ones((15, 3), np.float32)), {}, "factor: expected .P, R, row values."),
        (lambda t: t.update(extra=np.ones(3)), {}, "not a readable model"),
    ],
)
def test_damaged_or_foreign_files_are_refused(world, tmp_path, change, header, said):
    path = tmp_path / "g.safetensors"
    kernels.fit(world(6).train, 0.5).save(path)
    rewrite(path, change, **header)
    with pytest.raises(kernels.ModelFileError, match=said):
        kernels.Gaussian.load(path)


def test_truncated_and_missing_files_are_refused(world, tmp_path):
    path = tmp_path / "g.safetensors"
    kernels.fit(world(6).train, 0.5).save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(kernels.ModelFileError, match="not a readable model"):
        kernels.Gaussian.load(path)
    with pytest.raises(kernels.ModelFileError, match=r"no such model file; make one with Gaussian\.save"):
        kernels.Gaussian.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("form", "change", "said"),
    [
        ("triangular", {"mean": np.zeros((15, 6), np.float32)}, r"mean: expected \(h, w, C\)"),
        ("triangular", {"storage": "float16"}, "factor: expected uint16"),
        ("triangular", {"eps": np.ones(5)}, "eps: expected"),
        ("low_rank", {"tail": None}, "tail: missing"),
        ("low_rank", {"weights": np.ones((15, 2), np.float32)}, "weights: expected"),
        ("low_rank", {"scale": np.ones(12, np.float32)[::2]}, "scale: expected a C-contiguous array"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(world, form, change, said):
    model = kernels.fit(world(6).train, 0.5, factorisation=form)
    with pytest.raises(kernels.ShapeError, match=said):
        dataclasses.replace(model, **change)


def test_a_model_is_frozen(world):
    model = kernels.fit(world(6).train, 0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.samples = 3


def test_a_model_prints_as_one_line(world):
    model = kernels.fit(world(9, grid=(20, 21), samples=30).train, 0.5, factorisation="triangular")
    assert repr(model).startswith("Gaussian(20 x 21 positions, 9 channels, triangular of rank 9, float32, 30 samples, ")
    assert len(repr(model)) < 200
