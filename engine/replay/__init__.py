"""Frames of the past through another bundle."""

from engine.replay.entries import Chosen
from engine.replay.run import Replay, Row, replay

__all__ = ["Chosen", "Replay", "Row", "replay"]
