"""The way to the server: clients, scripts, and redis-py's errors translated into ours."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import PythonRespSerializer
from redis.exceptions import RedisClusterException
from redis.retry import Retry

from engine.config import Redis
from engine.errors import AwayError, StreamError
from engine.streams.address import place, with_password
from engine.streams.scripts import ALL, Script

log = logging.getLogger(__name__)

Argument = str | bytes | int
_pack: Any = hiredis.pack_command  # its annotation says that a command has one part

_SOCKET_S: Final = 10.0  # without an answer for so long the server counts as away; longer than any blocking read
_CONNECT_S: Final = 3.0
_READ_BYTES: Final = 1 << 18
_LEAST_VERSION: Final = (7, 0)
_JOINED_BYTES: Final = 6000
_REFUSED = (redis.AuthenticationError, redis.exceptions.AuthorizationError)  # ConnectionErrors that waiting won't help
_AWAY = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.ReadOnlyError,  # a failover is under way
    redis.exceptions.AskError,  # and MovedError: slots are moving
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
    RedisClusterException,
    OSError,
)
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
_LOST_REPLIES = ("NOGROUP", "UNBLOCKED the stream key")
_AWAY_REPLIES = ("UNBLOCKED", "MASTERDOWN", "BUSY ", "LOADING")


@dataclass(frozen=True, slots=True)
class Call:
    """One invocation of a script: its keys, all of one line, and its arguments."""

    keys: Sequence[str]
    args: Sequence[Argument]


class GroupLostError(StreamError):
    """The consumer group is gone: it was destroyed, or the stream was deleted."""


class Link:
    """Connections to one server or one cluster, opened on first use and safe to share between threads.

    Nothing here retries: a broken connection raises AwayError, and the next call connects again.
    """

    def __init__(self, settings: Redis, password: str | None, client_name: str) -> None:
        self.place = place(settings.url)
        self._url = with_password(settings.url, password)
        self._cluster_mode = settings.cluster
        self._client_name = client_name
        self._lock = threading.Lock()
        self._client: redis.Redis | None = None
        self._cluster: RedisCluster | None = None
        self._stale = False

    @property
    def clustered(self) -> bool:
        """Whether it is a cluster; known once `open` has returned."""
        return self._cluster is not None

    def open(self) -> None:
        """Connect and look at the server, where that was not done yet.

        Raises AwayError where it cannot be reached, StreamError where it refuses us or is too old.
        """
        with self._lock, self.translated():
            if self._client is None:
                self._first_contact()
            elif self._stale and self._cluster is not None:
                self._cluster.nodes_manager.initialize()
            self._stale = False

    def client(self, key: str) -> redis.Redis:
        """The client of the shard that holds a key; call `open` before."""
        if self._cluster is not None:
            node = self._cluster.get_node_from_key(key)  # type: ignore[no-untyped-call]
            return self._cluster.get_redis_connection(node)
        if self._client is None:
            raise AwayError(f"{self.place}: not connected yet")
        return self._client

    def run(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        """Run a script once per call, pipelined; each call's reply, or the StreamError that it met."""
        replies: list[Any] = [None] * len(calls)
        by_client: dict[redis.Redis, list[int]] = defaultdict(list)
        for i, call in enumerate(calls):
            by_client[self.client(call.keys[0])].append(i)
        for client, indices in by_client.items():
            found = self._run_on(client, script, [calls[i] for i in indices])
            for i, reply in zip(indices, found, strict=True):
                replies[i] = reply
        return replies

    @contextmanager
    def translated(self, keys: Sequence[str] = ()) -> Iterator[None]:
        """Raise redis-py's errors as ours; a refusal names the keys."""
        try:
            yield
        except (redis.RedisError, RedisClusterException, OSError) as error:
            raise self._translate(error, keys) from error

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            if self._cluster is not None:
                self._cluster.close()
            if self._client is not None:
                self._client.close()

    def _run_on(self, client: redis.Redis, script: Script, calls: Sequence[Call]) -> list[Any]:
        try:
            replies = _evaluate(client, script, calls)
            unknown = [i for i, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
            if unknown:
                for known in ALL:
                    client.script_load(known.source)
                for i, reply in zip(unknown, _evaluate(client, script, [calls[i] for i in unknown]), strict=True):
                    replies[i] = reply
        except (redis.RedisError, RedisClusterException, OSError) as error:
            return [self._translate(error)] * len(calls)
        return [
            self._translate(reply, call.keys) if isinstance(reply, Exception) else reply
            for reply, call in zip(replies, calls, strict=True)
        ]

    def _first_contact(self) -> None:
        options: dict[str, Any] = {
            "socket_timeout": _SOCKET_S,
            "socket_connect_timeout": _CONNECT_S,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "client_name": self._client_name,
        }
        if not self._url.startswith("unix:"):
            options["socket_keepalive"] = True
        client = redis.Redis.from_url(self._url, socket_read_size=_READ_BYTES, command_packer=_packer(), **options)
        try:
            about = _hello(client)
            _check_version(about, self.place)
            _warn_of_eviction(client, self.place)
            if self._cluster_mode == "on" or (self._cluster_mode == "auto" and about["mode"] == "cluster"):
                self._cluster = RedisCluster.from_url(self._url, **options)
        except BaseException:
            client.close()
            raise
        self._client = client

    def _translate(self, error: BaseException, keys: Sequence[str] = ()) -> StreamError:
        text = str(error).partition(" script: ")[0]  # what follows is where in our script, which tells nobody anything
        if isinstance(error, _REFUSED):
            return StreamError(
                f"{self.place}: the server refused the login ({text}); set REDIS_PASSWORD or redis.password_file"
            )
        if text.startswith(_LOST_REPLIES):
            return GroupLostError(f"{self.place}: {text}")
        if _UNTRUSTED in text:
            return StreamError(
                f"{self.place}: the server's certificate is not trusted ({text.partition(_UNTRUSTED)[2].strip('] ')}); "
                f"name its authority's with ?ssl_ca_certs=FILE at the end of redis.url"
            )
        if isinstance(error, _AWAY) or text.startswith(_AWAY_REPLIES):
            self._stale = True
            return AwayError(f"{self.place}: {text or type(error).__name__}")
        what = f" an operation on {', '.join(keys)}" if keys else ""
        return StreamError(f"{self.place}: the server refused{what}: {text}")


def exchange(client: redis.Redis, commands: Sequence[Sequence[Argument]]) -> list[Any]:
    """Send commands in one piece; each one's plain reply, or the ResponseError that the server answered.

    What redis-py's pipelines do, without what they do per command and call: a third of the processor time of a frame's
    reading and publishing was spent there.
    """
    connection: Any = client.connection_pool.get_connection()
    try:
        connection.send_packed_command([b"".join(_pack(tuple(command)) for command in commands)])
        return [_reply(connection) for _ in commands]
    except BaseException:
        connection.disconnect()  # replies may be left in it
        raise
    finally:
        client.connection_pool.release(connection)


def _packer() -> PythonRespSerializer:
    """Sends values over `_JOINED_BYTES` as they lie in memory; hiredis' packer copies pictures, 3 ms for a megabyte."""
    return PythonRespSerializer(_JOINED_BYTES, lambda value: value if isinstance(value, bytes) else str(value).encode())


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


def _evaluate(client: redis.Redis, script: Script, calls: Sequence[Call]) -> list[Any]:
    return exchange(client, [("EVALSHA", script.sha, len(call.keys), *call.keys, *call.args) for call in calls])


def _hello(client: redis.Redis) -> dict[str, str]:
    """What the server says of itself; unlike INFO open to every user."""
    reply = client.execute_command("HELLO", 2)  # type: ignore[no-untyped-call]
    text = [part.decode() if isinstance(part, bytes) else str(part) for part in reply]
    return dict(zip(text[::2], text[1::2], strict=True))


def _check_version(about: dict[str, str], where: str) -> None:
    """Refuse a server that lacks what the delivery promise needs."""
    if tuple(int(part) for part in about["version"].split(".")[:2]) < _LEAST_VERSION:
        raise StreamError(
            f"{where}: the server is version {about['version']}; expected Redis 7.0 or Valkey 7.2 or newer"
        )


def _warn_of_eviction(client: redis.Redis, where: str) -> None:
    try:
        memory = client.info("memory")
    except redis.exceptions.NoPermissionError:
        return  # this user may not look; nothing depends on it
    policy = memory.get("maxmemory_policy", "noeviction")
    if memory.get("maxmemory") and policy != "noeviction":
        log.warning(
            "%s: maxmemory-policy is %s and may evict streams, which loses frames; use noeviction", where, policy
        )
