"""TensorRT plans: built from a bundle's ONNX files, recorded, and built again where they do not fit the machine."""
