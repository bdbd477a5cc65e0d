"""What this machine offers the kernels."""

from __future__ import annotations

import os

from kernels import _cpu
from kernels.errors import KernelError

INSTRUCTION_SETS: tuple[str, ...] = tuple(_cpu.instruction_sets())
BEST: str = INSTRUCTION_SETS[0]


def thread_count(threads: int) -> int:
    """Threads to use where `threads` are asked for: 0 is one for every core this process may run on."""
    if threads < 0:
        raise KernelError(f"threads: expected 0 (all) or more, got {threads}")
    return threads or len(os.sched_getaffinity(0))
