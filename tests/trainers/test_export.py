"""Exported graphs become TensorRT engines: the real parser and builder of TensorRT-RTX, which need no GPU."""

from __future__ import annotations

import onnx
import pytest
from onnxruntime.transformers.float16 import convert_float_to_float16

from engine import bundle
from engine.contract import INPUT_NAME
from trainers import registry

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has no package for this platform")

BATCHES = (1, 4, 8)


def build(model: onnx.ModelProto, side: int) -> bytes:
    """The engine of a network for batches of 1 to 8; fails with the parser's own words."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        pytest.fail("\n".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape(INPUT_NAME, *((n, side, side, 3) for n in BATCHES))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    return bytes(engine)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("method", registry.names())
def test_the_network_of_every_method_becomes_an_engine(method, precision, trained):
    """TensorRT-RTX takes its precisions from the graph, so fp16 is a graph whose inner tensors are halves."""
    loaded = bundle.read(trained(method).bundle)
    model = onnx.load(loaded.file(loaded.executable("fp32").network))
    if precision == "fp16":
        model = convert_float_to_float16(model, keep_io_types=True)
    assert len(build(model, loaded.manifest.input.height)) > 10_000
