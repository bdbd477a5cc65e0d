"""`engine push`: pictures from a folder, a video or a camera into a line's stream."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from engine.config import Redis
from engine.contract import NAME_PATTERN
from engine.errors import DecodeError, UsageError
from engine.producer.buffer import Parcel
from engine.producer.encoding import encode
from engine.producer.journal import Journal
from engine.producer.schedule import Schedule, Thinner
from engine.producer.sender import Sender
from engine.producer.sources import Picture, Source, find_source
from engine.types import Codec, Frame

log = logging.getLogger(__name__)

MAX_BACKLOG = 1000
_GRACE_S = 10.0
_PROGRESS_NS = 200_000_000
