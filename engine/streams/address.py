"""Where the server is: its URL checked before anything is sent, with the password in it and without."""

from __future__ import annotations

import ssl
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

import redis

from engine.errors import ConfigError

_SCHEMES = ("redis", "rediss", "unix")


def place(url: str) -> str:
    """A URL without user, password and options, for logs; raises ConfigError where it is no URL of a server.

    What is wrong with a URL is told without quoting it: a password with an unescaped / or # ends up in any part of it.
    """
    scheme = url.partition(":")[0]
    if scheme not in _SCHEMES:
        raise ConfigError("redis.url: expected redis://, rediss://, unix:// or 'embedded'")
    try:
        redis.ConnectionPool.from_url(url).make_connection()  # connects to nothing yet
        parts = urlsplit(url)
        if scheme != "unix":
            int(parts.path.strip("/") or "0")  # redis-py would silently take database 0
    except (ValueError, TypeError, redis.RedisError) as error:
        what = f": {error}" if isinstance(error, TypeError) else ""
        raise ConfigError(
            f"redis.url: a host, port, database or option of this {scheme}:// URL is not understood{what}; expected "
            f"{scheme}://{'/PATH' if scheme == 'unix' else 'HOST:PORT/DATABASE'}?OPTION=VALUE, and %XX for the special "
            f"characters of a password"
        ) from None
    _check_certificates(parts.query)
    return f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def with_password(url: str, password: str | None) -> str:
    """A URL with its password replaced; unchanged for None."""
    if password is None:
        return url
    parts = urlsplit(url)
    user = parts.username or ""
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}"))


def _check_certificates(query: str) -> None:
    """Read the files that TLS will need; redis-py would take a missing one for a server that is away."""
    options = {name: values[-1] for name, values in parse_qs(query).items()}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in ("ssl_ca_certs", "ssl_certfile"):
        if name not in options:
            continue
        try:
            if name == "ssl_ca_certs":
                context.load_verify_locations(options[name])
            else:
                context.load_cert_chain(options[name], options.get("ssl_keyfile"), options.get("ssl_password", ""))
        except OSError as error:
            raise ConfigError(
                f"redis.url: {name}={options[name]} cannot be read ({error.strerror}); expected a PEM file"
            ) from None
