"""`python -m engine.triton.example`: write the configurations of model_repository/, for an example bundle."""

from __future__ import annotations

import sys
from pathlib import Path

from engine.contract import (
    DETECTOR_MODEL,
    Calibration,
    Estimate,
    Executable,
    File,
    Input,
    Manifest,
    Scale,
    TrainingData,
)
from engine.triton import models
from engine.triton.pbtxt import Tensor
from engine.triton.repository import CONFIG_NAME
from engine.triton.served import Flavour, Served

SOURCE = Path(__file__).parents[2] / "model_repository"
_CHANNELS, _GRID, _SIDE_PX = 176, 28, 224  # what `engine train` gives by default


def example(flavour: Flavour = "cpu") -> Served:
    """A bundle that nobody trained, of the sizes that `engine train` gives by default."""
    estimate = Estimate(
        target_fpr=0.01, how="k-fold", guarantee=False, n_images=100, folds=5, interval=(0.0, 0.05), note="an example"
    )
    scale = Scale(threshold=1.0, width=1.0)
    executable = Executable(
        network=File(path="network.onnx", sha256="0" * 64, bytes=0),
        gaussian=File(path="gaussian.safetensors", sha256="0" * 64, bytes=0),
        calibration=Calibration(image=scale, pixel=scale, image_estimate=estimate, pixel_estimate=estimate),
    )
    manifest = Manifest(
        name="example",
        version="1",
        method="fyd",
        input=Input(height=_SIDE_PX, width=_SIDE_PX),
        grid=(_GRID, _GRID),
        smoothing_sigma_px=4.0,
        executables={"fp32": executable},
        training=TrainingData(path="", n_good=0, sha256="", height_range=(1, 1), width_range=(1, 1)),
        settings={},
        report={},
        versions={},
    )
    outputs = (Tensor("features", "TYPE_FP32", (_CHANNELS, _GRID, _GRID)),)
    return Served(manifest, "fp32", flavour, manifest.method, outputs)


def configurations() -> dict[str, str]:
    """The text of `config.pbtxt` by the folder of model_repository/ in which it stands."""
    cpu, gpu = example("cpu"), example("gpu")
    names, gpu_names = models.Names.of(cpu), models.Names.of(gpu)
    found = (*models.fixed_models(cpu), *models.fixed_models(gpu), *models.public_models(cpu, 1))
    by_name = {config.name: config.text() for config in found}
    return {
        "member": by_name[names.member],
        "network": by_name[gpu_names.network],
        "map": by_name[gpu_names.map],
        "decision": by_name[names.decision],
        "method": by_name[cpu.name],
        "detector": by_name[DETECTOR_MODEL],
    }


def main() -> int:
    """Write them."""
    for folder, text in configurations().items():
        path = SOURCE / folder / CONFIG_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
