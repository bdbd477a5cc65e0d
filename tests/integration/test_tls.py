"""`rediss://`: a server behind TLS, whose certificate an authority of the test has signed."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import trustme

from engine.cli import main
from engine.config import Config, Redis
from engine.errors import AwayError, StreamError
from engine.push import PushOptions, push
from engine.streams.embedded import EmbeddedServer
from engine.streams.link import Link


@dataclass(frozen=True)
class Secure:
    """A port that speaks TLS for the server, and the files that a client of it may need."""

    port: int
    ca: Path
    other_ca: Path

    def url(self, **options: object) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"rediss://127.0.0.1:{self.port}/0?{query}"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def secure(server: EmbeddedServer, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("certificates")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with tls_port(server.socket_path, context) as port:
        yield Secure(port, folder / "ca.pem", folder / "other.pem")


@contextmanager
def tls_port(socket_path: Path, context: ssl.SSLContext) -> Iterator[int]:
    """A TCP port that takes TLS and passes everything on to a Unix socket."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(socket_path)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    async def serve() -> None:
        async with await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context) as relays:
            ports.append(relays.sockets[0].getsockname()[1])
            stops.append((asyncio.get_running_loop(), stop := asyncio.Event()))
            started.set()
            await stop.wait()

    ports: list[int] = []
    stops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    started = threading.Event()
    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    assert started.wait(10)
    yield ports[0]
    loop, stop = stops[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    assert not thread.is_alive()


async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while received := await source.read(1 << 16):
            sink.write(received)
            await sink.drain()
    sink.close()


def link(url: str) -> Link:
    return Link(Redis(url=url), None, "tester")


def test_frames_go_in_and_results_come_out(
    secure: Secure, line, make_config: Callable[..., Config], run_burst, tmp_path: Path
) -> None:
    there = replace(line, url=secure.url(ssl_ca_certs=secure.ca))
    where = Redis(url=there.url, prefix=line.prefix)
    cv2.imwrite(str(tmp_path / "a.png"), np.full((32, 32), 20, np.uint8))
    report = push(PushOptions(source=str(tmp_path), line="line1", camera="cam1", redis=where, loop=True, frames=20))
    assert report.frames == line.left() == 20
    run_burst(make_config(there))
    assert len(line.results()) == 20
    assert line.left() == 0


def test_the_systems_authorities_are_trusted(secure: Secure, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL finds them; the variable is its own way to say where."""
    monkeypatch.setenv("SSL_CERT_FILE", str(secure.ca))
    opened = link(secure.url())
    opened.open()
    assert opened.client("k").ping()
    opened.close()


@pytest.mark.parametrize("known", ["nobody", "another"])
def test_an_untrusted_certificate_is_refused_with_what_to_do(secure: Secure, known: str) -> None:
    options = {} if known == "nobody" else {"ssl_ca_certs": secure.other_ca}
    with pytest.raises(StreamError, match=r"not trusted.*certificate verify failed.*ssl_ca_certs=FILE") as caught:
        link(secure.url(**options)).open()
    assert not isinstance(caught.value, AwayError)
    assert "\n" not in str(caught.value)


def test_a_certificate_of_another_host_is_refused(secure: Secure) -> None:
    url = secure.url(ssl_ca_certs=secure.ca).replace("127.0.0.1", "localhost")
    with pytest.raises(StreamError, match=r"not trusted.*'localhost'"):
        link(url).open()


def test_a_client_certificate_is_shown_where_the_server_asks(
    server: EmbeddedServer, authority: trustme.CA, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("engine").private_key_and_cert_chain_pem.write_to_path(tmp_path / "engine.pem")
    with tls_port(server.socket_path, context) as port:
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path}/ca.pem"
        with pytest.raises(AwayError):
            link(url).open()
        opened = link(f"{url}&ssl_certfile={tmp_path}/engine.pem")
        opened.open()
        assert opened.client("k").ping()
        opened.close()


def test_serve_ends_with_one_line_and_1(secure: Secure, tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--line", f"a={tiny.path}", "--redis", secure.url()]) == 1
    errors = [text for text in capsys.readouterr().err.splitlines() if text.startswith("engine: error")]
    assert len(errors) == 1
    assert "not trusted" in errors[0]
