"""The sources compile, with every compiler that is there, and take the registers that they are recorded to take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernels.cuda import build, nvcc, nvrtc, sources

RECORDED = json.loads((Path(__file__).parent / "resources.json").read_text())

needs_nvcc = pytest.mark.skipif(nvcc.find() is None, reason="no nvcc on this machine: machine code is not checked")
needs_nvrtc = pytest.mark.skipif(not nvrtc.available(), reason="no NVRTC: pip install 'anomaly-engine[cuda]'")


@pytest.fixture(scope="session")
def compiled():
    """The report of a build of these sources, which is kept between runs."""
    folder = build.cache_folder()
    if not (folder / "kernels.json").is_file():
        build.build(folder)
    return build.report(folder)


@needs_nvcc
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_kernel_spills(compiled):
    assert {entry.architecture for entry in compiled.resources} == set(nvcc.ARCHITECTURES)
    assert [entry for entry in compiled.resources if entry.spill_bytes or entry.stack_bytes] == []
    assert max(entry.registers for entry in compiled.resources) <= 128  # two blocks of 256 threads


@needs_nvcc
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_registers_are_the_recorded_ones(compiled):
    """After a change: `python -m kernels.cuda.build --record tests/kernels/cuda/resources.json`, and read the diff."""
    if compiled.compiler != RECORDED["nvcc"]:
        pytest.skip(f"registers are recorded for nvcc {RECORDED['nvcc']}, this is {compiled.compiler}")
    assert build.registers(compiled) == RECORDED["registers"]


@needs_nvrtc
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("architecture", ["sm_90"])
def test_nvrtc_compiles_every_kernel(architecture):
    binary = nvrtc.cubin(architecture)
    assert binary.startswith(b"\x7fELF")
    assert all(name.encode() in binary for name in RECORDED["registers"][architecture])


def test_the_package_carries_its_sources():
    lines = "\n".join(sources.headers().values()).splitlines()
    included = {line.split('"')[1] for line in lines if line.startswith('#include "')}
    assert included - set(sources.headers()) == {"host.hpp"}  # the tests' GPU
    assert (sources.FOLDER / sources.MAIN).is_file()
    assert (sources.FOLDER / sources.LIBRARY).is_file()


def test_the_report_of_ptxas_is_read():
    text = """ptxas info    : Compiling entry function 'a_kernel' for 'sm_90'
ptxas info    : Function properties for a_kernel
    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 99 registers, used 1 barriers, 8 bytes cumulative stack size
"""
    assert nvcc.resources(text) == [nvcc.Resources("a_kernel", "sm_90", 99, 8, 28)]
