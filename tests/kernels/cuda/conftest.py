"""The device code on the CPU, under AddressSanitizer and UBSan."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kernels.cuda.sources import FOLDER
from kernels.errors import KernelError

HERE = Path(__file__).parent

# Multiprocessors, shared memory of a block and of a multiprocessor, compute capability.
DEVICES = {
    "a100": (108, 166912, 167936, 8, 0),
    "rtx4090": (128, 101376, 102400, 8, 9),
    "h100": (132, 232448, 233472, 9, 0),
    "one": (1, 232448, 233472, 9, 0),  # no chip: one multiprocessor, so that blocks take many positions
    "tiny": (2, 12288, 24576, 9, 0),  # no chip: shared memory for few positions, so that plans get tight
}


class Gpu:
    """A device in another process, which the sanitizers end at the first fault."""

    def __init__(self, library: Path, device: str) -> None:
        preload = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
        environment = os.environ | {"LD_PRELOAD": preload.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0"}
        self._errors = library.with_name(f"{device}.log").open("w+")
        command = [sys.executable, str(HERE / "worker.py"), str(library)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors}
        self._process = subprocess.Popen(command, env=environment, **pipes)
        self._ask("describe", DEVICES[device])

    def map(self, features, model):
        """kernels.mahalanobis_map on the device."""
        bits = features if features.dtype == np.float32 else features.view(np.uint16)
        rank = 0 if model.weights is None else model.rank
        arrays = (model.factor, model.storage, model.mean, model.scale, model.weights, model.tail, rank)
        return self._ask("map", bits, features.dtype.name, *arrays)

    def upsample(self, grids, rows, columns):
        """Maps and scores; `rows` and `columns` are kernels.cuda.head.Band."""
        return self._ask("upsample", grids, *((band.weights, band.first, band.cells) for band in (rows, columns)))

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _ask(self, name, *arguments):
        try:
            pickle.dump((name, arguments), self._process.stdin)
            self._process.stdin.flush()
            answer = pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError):
            self._errors.seek(0)
            pytest.fail(f"the device code was stopped:\n{self._errors.read()[-4000:]}")
        if isinstance(answer, int):
            raise KernelError(f"device: status {answer}")
        return answer


@pytest.fixture(scope="session")
def host_library(once):
    """launch.cu and every kernel, compiled for the CPU once in a run of the tests."""
    return once("device-code", _compiled)


def _compiled(folder):
    library = folder / "device.so"
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    language = ["-std=c++17", "-O1", "-fstrict-aliasing", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]
    options = [*language, "-g1", "-fPIC", "-shared"]
    command = ["g++", *options, *sanitizers, f"-I{FOLDER}", f"-I{HERE}", str(HERE / "host.cpp"), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return library


@pytest.fixture(scope="session")
def gpus(host_library):
    """A function of a name in DEVICES."""
    running = {}

    def get(name):
        if name not in running:
            running[name] = Gpu(host_library, name)
        return running[name]

    yield get
    for gpu in running.values():
        gpu.close()
