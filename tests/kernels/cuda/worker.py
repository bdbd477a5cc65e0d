"""The device code on the CPU, in a process of its own that the sanitizers' library was loaded into.

Reads pickled requests from standard input and answers on standard output: a map or an upsampling of NumPy arrays.
"""

from __future__ import annotations

import ctypes
import pickle
import sys

import numpy as np

from kernels import _launch


def pointer(array):
    return 0 if array is None else array.ctypes.data


def bits(array):
    """A 64-bit integer per element of strides; 16-bit features travel as uint16."""
    return tuple(step // array.itemsize for step in array.strides)


class Host:
    """The C functions of launch.cu, on a GPU of the given attributes."""

    def __init__(self, path):
        self.library = ctypes.CDLL(path)

    def describe(self, device):
        self.library.describe_device((ctypes.c_int * 5)(*device))

    def map(self, features, features_number, factor, factor_number, mean, scale, weights, tail, rank):
        n, _, h, w = features.shape
        out = np.full((n, h, w), -1, np.float32)
        problem = _launch.problem(
            pointer(features),
            features_number,
            features.shape,
            bits(features),
            pointer(factor),
            factor_number,
            pointer(mean),
            pointer(scale),
            pointer(weights),
            pointer(tail),
            rank,
            pointer(out),
        )
        status = self.library.mahalanobis_map(problem, None)
        return out if status == 0 else status

    def upsample(self, grids, rows, columns):
        """`rows` and `columns` are weights (pixels, taps), firsts (pixels,) and the number of cells."""
        batch = len(grids)
        maps = np.full((batch, len(rows[0]), len(columns[0])), -1, np.float32)
        scores = np.full(batch, -1, np.float32)
        axes = [(pointer(w), pointer(first), len(w), cells, w.shape[1]) for w, first, cells in (rows, columns)]
        *_, arguments = _launch.upsample(pointer(grids), batch, *axes, pointer(maps), pointer(scores))
        status = self.library.mahalanobis_upsample(arguments, None)
        return (maps, scores) if status == 0 else status


def main(path):
    host = Host(path)
    while True:
        try:
            name, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(getattr(host, name)(*arguments), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1])
