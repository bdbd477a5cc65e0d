"""The embedded server: ready, configured, and gone with its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from engine.errors import MissingExtraError, StreamError
from engine.streams import embedded
from engine.streams.embedded import EmbeddedServer, free_port

OWNER = """
import signal, sys, threading
from engine.streams.embedded import EmbeddedServer
server = EmbeddedServer()
starter = threading.Thread(target=server.start)  # a thread that ends must not take the server along
starter.start()
starter.join()
with server.client() as client:
    print(client.info("server")["process_id"], server.socket_path.parent, flush=True)
signal.pause()
"""


def pid_of(server: EmbeddedServer) -> int:
    with server.client() as client:
        return int(client.info("server")["process_id"])


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_it_answers_and_leaves_nothing_behind(wait_until: Callable[..., None]) -> None:
    with EmbeddedServer() as server, server.client() as client:
        pid, folder = pid_of(server), server.socket_path.parent
        assert client.ping()
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        assert client.config_get("maxmemory")["maxmemory"] == str(1 << 30)
        assert oct(server.socket_path.stat().st_mode & 0o777) == "0o700"
        with redis.Redis.from_url(server.url) as by_url:
            assert by_url.ping()
    wait_until(lambda: not alive(pid))
    assert not folder.exists()


def test_it_listens_on_a_port_where_asked() -> None:
    port = free_port()
    with EmbeddedServer(port=port) as server, redis.Redis.from_url(server.url) as client:
        assert server.url == f"redis://127.0.0.1:{port}/0"
        assert client.ping()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_does_not_outlive_its_owner(number: signal.Signals, wait_until: Callable[..., None]) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None
        pid, folder = (kind(word) for kind, word in zip((int, Path), owner.stdout.readline().split(), strict=True))
        assert alive(pid)
        assert folder.is_dir()
        owner.send_signal(number)
        wait_until(lambda: not alive(pid))
        wait_until(lambda: not folder.exists())


def test_data_survives_a_crash_where_it_is_persisted(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    server = EmbeddedServer(directory=folder, settings={"appendonly": "yes", "appendfsync": "always"})
    server.start()
    with server.client() as client:
        client.set("key", "kept")
    server.kill()
    server.start()
    with server.client() as client:
        assert client.get("key") == b"kept"
    server.stop()
    assert folder.exists()


def test_a_bad_setting_is_reported_with_the_servers_words() -> None:
    with pytest.raises(StreamError, match="did not start"):
        EmbeddedServer(settings={"maxmemory": "no number"}).start()


def test_a_path_that_is_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="TMPDIR"):
        EmbeddedServer(directory=tmp_path / ("x" * 100)).start()


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"anomaly-engine\[embedded\]"):
        EmbeddedServer()


def test_many_owners_do_not_disturb_each_other() -> None:
    servers = [EmbeddedServer() for _ in range(3)]
    threads = [threading.Thread(target=server.start) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pids = {pid_of(server) for server in servers}
    assert len(pids) == 3
    for server in servers:
        server.stop()
    assert os.getpid() not in pids
