"""The benchmark of Triton against this process, at a length that says nothing about speed."""

from __future__ import annotations

from benchmarks import triton_backend
from benchmarks.harness import Context


def test_every_contender_is_measured_and_shown(bundle, tmp_path):
    run = triton_backend.compared(Context(tmp_path, threads=1), bundle, "fp32", seconds=0.2, rounds=1)
    found = run["contenders"]
    assert list(found) == ["in process", "Triton, shared memory", "Triton, messages"]
    assert found["in process"]["share"] == 1
    for contender in found.values():
        assert contender["frames_per_s"] > 0
        assert contender["cpu_ms"] > 0
    lines = triton_backend.table({"runs": [run]}).splitlines()
    assert len(lines) == 2 + len(found)
    assert len({line.count("|") for line in lines}) == 1
