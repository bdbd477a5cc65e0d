"""The whole stream on one machine: server, `engine serve`, cameras and a reader, each a process or thread of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import cast

from engine.bench.load import Target, load_worker
from engine.bench.reader import ResultReader, Seen
from engine.bench.report import Latency, OpenLoopRun, Setup, Usage, latency, quantiles, rate
from engine.bench.usage import Meter
from engine.bench.worker import Worker
from engine.bundle import Bundle
from engine.config import Redis
from engine.errors import EngineError
from engine.streams.embedded import EmbeddedServer
from engine.streams.redis import connect
