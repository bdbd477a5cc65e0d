"""Plans by the real builder of TensorRT-RTX, which needs no GPU."""

from __future__ import annotations

import logging
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine.errors import BackendError, UsageError
from engine.plans import library
from engine.plans.build import BuildOptions, Profile, build

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no package for this platform")


@pytest.fixture
def rtx():
    return library.find("tensorrt_rtx")


def test_the_plan_takes_any_batch_of_its_profile(rtx, tiny, caplog):
    """The builder's own words on the range of N, and on what goes in and comes out."""
    caplog.set_level(logging.DEBUG, logger="engine.plans.library")
    plan = build(rtx, tiny.path / "network.onnx", BuildOptions(Profile(2, 5, 19)))
    assert len(plan) > 10_000
    assert re.search(r"\[2,19\]\s+N", caplog.text)
    assert "image (UInt8[-1,64,64,3]) -> features (Float[-1,4,8,8])" in caplog.text


def test_a_build_is_one_line_of_the_log(rtx, tiny, caplog):
    caplog.set_level(logging.INFO, logger="engine")
    build(rtx, tiny.path / "network.onnx", BuildOptions())
    (line,) = [record.message for record in caplog.records if record.levelno == logging.INFO]
    assert re.fullmatch(rf"network\.onnx: built by tensorrt_rtx {re.escape(rtx.version)} in \d+ s", line)


def quantised(path, dtype, zero_point):
    """A convolution whose input goes through a pair of Q and DQ."""
    zero = numpy_helper.from_array(np.array(zero_point, dtype), "zero")
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("QuantizeLinear", ["float", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
        helper.make_node("Conv", ["dq", "w"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 8, 8, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 2, 8, 3])],
        [
            zero,
            numpy_helper.from_array(np.float32(0.5), "scale"),
            numpy_helper.from_array(np.ones((2, 8, 1, 1), np.float32), "w"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_zero_points_are_what_it_refuses(rtx, tmp_path):
    """Why int8 is quantised again for TensorRT: the executables for the CPU are uint8 with zero points."""
    assert build(rtx, quantised(tmp_path / "a.onnx", np.int8, 0), BuildOptions())
    for dtype, zero_point in ((np.uint8, 128), (np.int8, 3)):
        with pytest.raises(BackendError, match=r"b\.onnx: tensorrt_rtx .* cannot parse it"):
            build(rtx, quantised(tmp_path / "b.onnx", dtype, zero_point), BuildOptions())


def test_what_is_no_network_is_refused_in_one_error(rtx, tmp_path):
    (tmp_path / "network.onnx").write_bytes(b"no network")
    with pytest.raises(BackendError, match=r"network\.onnx: tensorrt_rtx .* cannot parse it: .+"):
        build(rtx, tmp_path / "network.onnx", BuildOptions())


def test_plans_for_later_versions_need_full_tensorrt(rtx, tiny):
    with pytest.raises(UsageError, match="--version-compatible: needs full TensorRT"):
        build(rtx, tiny.path / "network.onnx", BuildOptions(version_compatible=True))


@pytest.mark.parametrize("sizes", [(0, 1, 2), (2, 1, 3), (1, 4, 3)])
def test_a_profile_is_in_order(sizes):
    with pytest.raises(UsageError, match="expected LEAST,BEST,MOST"):
        Profile(*sizes)


@pytest.mark.skipif(library.available() and library.find().name == "tensorrt", reason="full TensorRT is installed here")
def test_a_library_that_is_not_there_is_named():
    with pytest.raises(BackendError, match="tensorrt: not installed; pip install tensorrt"):
        library.find("tensorrt")
    assert library.find().name == "tensorrt_rtx"
