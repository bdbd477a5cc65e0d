"""A tritonserver of our own on a repository: started detached, remembered in a file, ended without a trace."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import platformdirs
import psutil

from engine.contract import DETECTOR_MODEL, Struct
from engine.errors import BackendError, UsageError
from engine.triton import installation
from engine.triton.control import Control
from engine.triton.installation import Installation
from engine.triton.repository import Repository

_HOST = "127.0.0.1"
_USUAL_PORTS = (8000, 8001, 8002)  # Triton's: http, grpc, metrics
_SHARED_MEMORY = Path("/dev/shm")
_STUB_BYTES = 64 << 20
_START_S = 120.0
_DRAIN_S = 10  # requests that are running get this long at `down`
_POLL_S = 0.05
_LAST_WORDS = 4
_ERROR = re.compile(r"E\d{4} |error|\w*Error:")
_NO_GPU = re.compile("CUDA|Cuda|NVML|DCGM")


class Running(Struct, frozen=True):
    """A server that was started: where it answers, its process (with the time of its start) and its log."""

    repository: str
    http: str
    grpc: str
    metrics: str
    pid: int
    created_s: float
    log: str
    shm_prefix: str
    what: str
    remove: tuple[str, ...] = ()

    @property
    def control(self) -> Control:
        """Its health and models."""
        return Control(self.http)

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        process = _process(self)
        try:
            return process is not None and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


class Server:
    """The one server of a repository."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        key = hashlib.sha256(os.fsencode(repository.path)).hexdigest()[:12]
        self._folder = Path(platformdirs.user_state_dir("anomaly-engine")) / "triton" / key
        self._state = self._folder / "server.json"
        self._name = f"engine-triton-{key}"

    def running(self) -> Running | None:
        """The server, where its process is there."""
        remembered = self._remembered()
        return remembered if remembered is not None and remembered.alive else None

    def up(self, ports: tuple[int, int, int] = (0, 0, 0)) -> Running:
        """Start a server and return when it takes requests; the one that is up already, where there is one.

        `ports` are http, grpc and metrics; 0 is Triton's usual one where it is free, else any. Raises UsageError where
        there is no server or a port is taken, BackendError with its last words where it does not start.
        """
        self.repository.require()
        with self._alone():
            if (running := self.running()) is not None:
                return running
            self._clear()  # what a killed one left
            while True:
                chosen = tuple(_port(wanted, usual) for wanted, usual in zip(ports, _USUAL_PORTS, strict=True))
                try:
                    return self._started(chosen)
                except BackendError:
                    if all(map(_free, chosen)):
                        raise  # else another server took a port while this one was loading its models

    def down(self) -> bool:
        """End the server and remove what it leaves: processes, shared memory, container. False where none ran.

        Running requests are finished.
        """
        with self._alone():
            return self._clear()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two commands on one repository at a time would start two servers and remember one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _clear(self) -> bool:
        running = self._remembered()
        if running is None:
            return False
        was_alive = running.alive
        _end(running)
        if running.remove:
            subprocess.run(running.remove, capture_output=True, check=False)
        for left in _SHARED_MEMORY.glob(f"{running.shm_prefix}*"):
            left.unlink(missing_ok=True)
        shutil.rmtree(self._folder / "backends", ignore_errors=True)
        (self._folder / "repository").unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)
        return was_alive

    def _remembered(self) -> Running | None:
        try:
            return msgspec.json.decode(self._state.read_bytes(), type=Running)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def _plain_path(self) -> Path:
        """The repository's path, or a link to it: Triton's python backend takes a path apart at its spaces."""
        path = self.repository.path
        if len(os.fspath(path).split()) == 1:
            return path
        link = self._folder / "repository"
        link.unlink(missing_ok=True)
        link.symlink_to(path)
        return link

    def _started(self, ports: tuple[int, ...]) -> Running:
        """A server that is ready; nothing of it is left where it raises."""
        path = self._plain_path()
        running = self._start(installation.find(path, self._folder, self._name), path, ports)
        try:
            self._wait_until_ready(running)
        except BaseException:
            self._clear()
            raise
        return running

    def _start(self, found: Installation, repository: Path, ports: tuple[int, ...]) -> Running:
        prefix = f"{self._name}-{secrets.token_hex(4)}-"
        log = self._folder / "server.log"
        command = [*found.command, *_options(self.repository, repository, ports, prefix)]
        if found.backends is not None:
            command.append(f"--backend-directory={found.backends}")
        pid = _spawn(command, found.environment, log)
        http, grpc, metrics = (f"{_HOST}:{port}" for port in ports)
        created_s = psutil.Process(pid).create_time()
        running = Running(
            repository=str(self.repository.path),
            http=http,
            grpc=grpc,
            metrics=f"http://{metrics}/metrics",
            pid=pid,
            created_s=created_s,
            log=str(log),
            shm_prefix=prefix,
            what=found.what,
            remove=tuple(found.remove),
        )
        self._state.write_bytes(msgspec.json.encode(running))
        return running

    def _wait_until_ready(self, running: Running) -> None:
        deadline_s = time.monotonic() + _START_S
        while time.monotonic() < deadline_s:
            if running.control.name() == running.shm_prefix and running.control.ready(DETECTOR_MODEL):
                return  # it, and not another one that took the port
            if not running.alive:
                raise BackendError(
                    f"{running.what}: ended at its start: {_last_words(running)}; all of it: {running.log}"
                )
            time.sleep(_POLL_S)
        raise BackendError(f"{running.what}: not ready after {_START_S:g} s: {_last_words(running)}; see {running.log}")


def _spawn(command: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
    """Start a process in a session of its own that writes to a log and outlives this one."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawn(command[0], list(command), environment, file_actions=actions, setsid=True)


def _options(repository: Repository, path: Path, ports: tuple[int, ...], prefix: str) -> list[str]:
    http, grpc, metrics = ports
    return [
        f"--id={prefix}",
        f"--model-repository={path}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in repository.all_models()),
        f"--http-address={_HOST}",
        f"--http-port={http}",
        f"--grpc-address={_HOST}",
        f"--grpc-port={grpc}",
        f"--metrics-address={_HOST}",
        f"--metrics-port={metrics}",
        "--disable-auto-complete-config",
        "--strict-readiness=false",
        f"--exit-timeout-secs={_DRAIN_S // 2}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        f"--backend-config=python,shm-default-byte-size={_STUB_BYTES}",
    ]


def _port(wanted: int, usual: int) -> int:
    """A free port; raises UsageError where the wanted one is taken."""
    for port in (wanted,) if wanted else (usual, 0):
        if (found := _free(port)) is not None:
            return found
    raise UsageError(f"engine triton up: port {wanted} of {_HOST} is taken; give another one, or 0 for any")


def _free(port: int) -> int | None:
    """The port where it can be had; of 0, any that can be had."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return None
        return int(probe.getsockname()[1])


def _process(running: Running) -> psutil.Process | None:
    """The server's process, dead or alive, where the number is not another's by now."""
    try:
        process = psutil.Process(running.pid)
        return process if abs(process.create_time() - running.created_s) < 1 else None
    except psutil.NoSuchProcess:
        return None


def _end(running: Running) -> None:
    """SIGTERM, and SIGKILL for what is left of its session: a killed server's stubs stay behind.

    The number of a session is not given to another process while any of its processes lives.
    """
    process = _process(running)
    if process is None and psutil.pid_exists(running.pid):
        return
    if process is not None:
        process.send_signal(signal.SIGTERM)
        psutil.wait_procs([process], timeout=_DRAIN_S)
    left = [process for process in psutil.process_iter() if _in_session(process, running.pid)]
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=_DRAIN_S)


def _in_session(process: psutil.Process, leader: int) -> bool:
    try:
        return os.getsid(process.pid) == leader
    except ProcessLookupError:
        return False


def _last_words(running: Running) -> str:
    """The errors of its log, without those that every machine without a GPU has."""
    lines = [line for line in Path(running.log).read_text(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if _ERROR.match(line) and not _NO_GPU.search(line)]
    return " / ".join((telling or lines)[-_LAST_WORDS:]) or "it said nothing"
