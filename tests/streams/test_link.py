"""Connections: addresses, passwords, old servers, and which errors mean `wait` and which `refused`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config import Config, Redis
from engine.config import Line as LineConfig
from engine.errors import AwayError, ConfigError, StreamError
from engine.streams import scripts
from engine.streams.embedded import EmbeddedServer, free_port
from engine.streams.keys import GROUP, line_keys
from engine.streams.link import Call, GroupLostError, Link
from engine.streams.redis import connect, read_password


@pytest.fixture(scope="module")
def guarded() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(settings={"requirepass": "s3cret/@:"}) as server:
        yield server


def link(url: str, password: str | None = None) -> Link:
    return Link(Redis(url=url), password, "tester")


def test_keys_carry_the_hash_tag() -> None:
    keys = line_keys("engine", "line1")
    assert (keys.frames, keys.results, keys.dead) == (
        "engine:{line1}:frames",
        "engine:{line1}:results",
        "engine:{line1}:dead",
    )
    assert GROUP == "engine"


def test_the_variable_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_text("from file\n")
    settings = Redis(password_file=str(file))
    monkeypatch.delenv("REDIS_PASSWORD", raising=False)
    assert read_password(Redis()) is None
    assert read_password(settings) == "from file"
    monkeypatch.setenv("REDIS_PASSWORD", "from variable")
    assert read_password(settings) == "from variable"
    monkeypatch.delenv("REDIS_PASSWORD")
    with pytest.raises(ConfigError, match="password_file"):
        read_password(Redis(password_file=str(tmp_path / "missing")))


def test_the_right_password_opens(guarded: EmbeddedServer) -> None:
    opened = link(guarded.url, "s3cret/@:")
    opened.open()
    assert opened.client("k").ping()
    opened.close()


@pytest.mark.parametrize("password", [None, "wrong-one"])
def test_a_wrong_password_is_refused_and_never_told(
    guarded: EmbeddedServer, password: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StreamError, match="REDIS_PASSWORD") as caught:
        link(guarded.url, password).open()
    assert not isinstance(caught.value, AwayError)
    assert "wrong-one" not in str(caught.value) + caplog.text


def test_a_password_from_the_environment_reaches_the_server(
    guarded: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", "s3cret/@:")
    with connect(Config(redis=Redis(url=guarded.url), line=(LineConfig(name="l", bundle="b"),))) as streams:
        assert streams.source.backlog() == {"l": 0}
        assert "s3cret" not in repr(streams.url)


def test_a_server_that_is_not_there_is_away() -> None:
    with pytest.raises(AwayError, match="redis://127"):
        link(f"redis://127.0.0.1:{free_port()}/0").open()
    with pytest.raises(AwayError):
        link("unix:///tmp/no-such-socket").open()


def test_scripts_are_loaded_on_demand_and_run_once(server: EmbeddedServer) -> None:
    opened = link(server.url)
    opened.open()
    client = opened.client("k")
    client.script_flush()
    key = "loaded:{x}:frames"
    assert len(opened.run(scripts.OPEN, [Call((key, "loaded:{x}:ended"), (GROUP,))] * 2)) == 2
    entry = client.xadd(key, {"a": "1"})
    client.xreadgroup(GROUP, "tester", {key: ">"})
    client.script_flush()
    end = Call((key, "loaded:{x}:ended", "loaded:{x}:results"), (GROUP, entry, 0, 0, "meta", "m"))
    assert opened.run(scripts.END, [end, end]) == [1, 0]
    assert client.xlen("loaded:{x}:results") == 1
    opened.close()


def test_each_call_has_its_own_error(server: EmbeddedServer) -> None:
    opened = link(server.url)
    opened.open()
    client = opened.client("k")
    client.set("wrong:{x}:frames", "a string")
    calls = [Call((key,), (GROUP, "c", "0-1")) for key in ("wrong:{x}:frames", "none:{x}:frames")]
    wrong, lost = opened.run(scripts.RENEW, calls)
    assert isinstance(wrong, StreamError)
    assert "WRONGTYPE" in str(wrong)
    assert isinstance(lost, GroupLostError)
    opened.close()


def test_eviction_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with EmbeddedServer(settings={"maxmemory-policy": "allkeys-lru"}) as server:
        opened = link(server.url)
        opened.open()
        opened.close()
    assert "noeviction" in caplog.text


def test_a_user_without_info_may_still_work(server: EmbeddedServer) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "plain", "on", ">pw", "~*", "+@all", "-@dangerous")
    opened = link(server.url.replace("unix://", "unix://plain:pw@"))
    opened.open()
    assert opened.client("k").ping()
    opened.close()
