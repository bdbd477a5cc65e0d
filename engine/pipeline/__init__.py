"""Read, decode, batch, infer, decide, publish: the stages between a line's frames and its results.

Threads with queues between them; the ledger bounds what all of them together hold.
"""

from engine.pipeline.job import Watch
from engine.pipeline.pipeline import Pipeline

__all__ = ["Pipeline", "Watch"]
