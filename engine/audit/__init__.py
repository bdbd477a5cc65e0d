"""Frames in against results and dead letters out."""

from engine.audit.line import audit
from engine.audit.verdict import Verdict

__all__ = ["Verdict", "audit"]
