"""Every error the kernels raise on purpose, as one tree.

KernelError (ValueError)       arguments or files that cannot be used
|-- ShapeError                 an array of the wrong shape or dtype
|-- SingularError              a covariance that has no inverse
|-- TooManyBytesError          a model larger than it may be
`-- ModelFileError             a file that is missing, damaged, or no model
"""

from __future__ import annotations


class KernelError(ValueError):
    """Base of all deliberate errors; the message says what, expected, got and what to do."""


class ShapeError(KernelError):
    """An array whose shape or dtype does not fit."""


class SingularError(KernelError):
    """A covariance without an inverse: eps is too small, or the training features are not finite."""


class TooManyBytesError(KernelError):
    """The model would be larger than `max_bytes`."""


class ModelFileError(KernelError):
    """A model file that is missing, damaged, or of another kind or version."""
