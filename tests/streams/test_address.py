"""URLs of servers: what is taken, what is told of those that are not, and where the password goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.streams.address import place, with_password


def test_the_place_of_a_server_holds_no_password() -> None:
    assert place("rediss://user:secret@host:6380/2?ssl_cert_reqs=none") == "rediss://host:6380/2"
    assert place("unix://:secret@/run/redis.sock") == "unix:///run/redis.sock"


@pytest.mark.parametrize("url", ["http://host", "host:6379", ""])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"redis\.url"):
        place(url)


def test_a_password_takes_its_place_in_the_url() -> None:
    assert with_password("redis://host:1/0", "a/@:b") == "redis://:a%2F%40%3Ab@host:1/0"
    assert with_password("redis://user:old@host:1/0", "new") == "redis://user:new@host:1/0"
    assert with_password("redis://user:old@host:1/0", None) == "redis://user:old@host:1/0"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://h:port/0", "PORT"),
        ("redis://h:99999/0", "PORT"),
        ("redis://[::1/0", "HOST"),
        ("redis://h/first", "DATABASE"),
        ("unix:///x?db=first", "PATH"),
        ("rediss://h/0?ssl_cert_reqs=perhaps", "OPTION"),
        ("redis://h/0?colour=red", "'colour'"),
        ("redis://h/0?ssl_ca_certs=x", "'ssl_ca_certs'"),
        ("rediss://h/0?ssl_ca_certs=/no/such.pem", "ssl_ca_certs=/no/such.pem cannot be read"),
        ("rediss://h/0?ssl_certfile=/no/such.pem", "ssl_certfile=/no/such.pem cannot be read"),
    ],
)
def test_what_is_wrong_with_a_url_is_told(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"redis\.url") as caught:
        place(url)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_certificates_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    with pytest.raises(ConfigError, match="expected a PEM file"):
        place(f"rediss://h/0?ssl_ca_certs={file}")


@pytest.mark.parametrize(
    "url",
    ["redis://:s3cret/x@h:1/0", "redis://u:s3cret#x@h/0", "redis://:99/s3cret@h/0", "http://u:s3cret@h", "s3cret"],
)
def test_a_url_that_is_refused_is_not_quoted(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        place(url)
    assert "s3cret" not in str(caught.value)
