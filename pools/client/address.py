"""The address of a broker, and the token that it requires.

>>> Target.parse("/run/snakepit/broker.sock").path
'/run/snakepit/broker.sock'
>>> Target.parse("node-2:7443")
Traceback (most recent call last):
    ...
snakepit.pools.broker.errors.BadRequest: address: node-2:7443 is a TCP address and needs TLS: pass tls=Tls(ca=...)
"""

from __future__ import annotations

import os
import re
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from snakepit.pools.broker.errors import BadRequest, BrokerUnreachable, Unauthenticated
from snakepit.pools.client.tls import Tls
from snakepit.pools.listening import is_loopback

if TYPE_CHECKING:
    from snakepit.pools.conf import Configuration

SOCKET = "broker.sock"
TOKEN = "token"
LONGEST_PATH = 107  # bytes in sockaddr_un.sun_path, without its closing NUL
TCP = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^/:\s]+):(?P<port>\d{1,5})")


class InProcessBroker(Protocol):
    """A broker of this process, as `snakepit.testing` has one. It needs no socket."""

    async def connect(self, on_message: Callable[[bytes], None], use: Callable[[Any], Any]) -> None:
        """Open a session, and run `use(connection)` for as long as it lasts."""
        ...

    def prepare(self, pool: str) -> None:
        """Start a pool that has not started yet, and wait until it takes calls or has failed."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """One broker's address: a Unix socket's path, a host and port, or a broker of this process."""

    path: str = ""
    host: str = ""
    port: int = 0
    token: str = field(default="", repr=False)  # or an API key; empty: the file beside the socket, read at each connect
    tls: ssl.SSLContext | Tls | None = None  # None: no TLS
    connect_timeout: float = 1.0  # seconds
    local: InProcessBroker | None = None
    server_name: str = ""  # that its certificate must have; empty: `host`

    def __hash__(self) -> int:
        return hash(self.path or self.host)  # each call finds its session by this; all fields take as long as sending

    @classmethod
    def parse(
        cls,
        address: str,
        token: str = "",
        tls: ssl.SSLContext | Tls | bool | None = None,
        connect_timeout: float = 1.0,
    ) -> Target:
        """Read an address; refuses one that cannot work here, with the fix, and not at the first call.

        `tls`: False allows a host and port without TLS, True takes the system's authorities. Without it, only an
        address of this machine needs none.
        """
        known = cls(token=token, connect_timeout=connect_timeout)
        address = address.removeprefix("unix://").removeprefix("unix:")
        if match := TCP.fullmatch(address):
            host, port = match["host"].strip("[]"), int(match["port"])
            if tls is None and not is_loopback(host):
                raise BadRequest(f"address: {address} is a TCP address and needs TLS: pass tls=Tls(ca=...)")
            if not 0 < port < 65536:
                raise BadRequest(f"address: {port} is not a port; ports are 1 to 65535")
            return replace(known, host=host, port=port, tls=Tls() if tls is True else tls or None)
        if not address or "\0" in address or "://" in address:
            raise BadRequest(
                f"address: {address!r} is not the path of a socket, host:port, or dns:///host:port for all brokers "
                "behind a name"
            )
        path = str(Path(address).expanduser().absolute())
        if len(os.fsencode(path)) > LONGEST_PATH:
            raise BadRequest(
                f"address: {path} is longer than {LONGEST_PATH} bytes, the longest path of a Unix socket; "
                "set SNAKEPIT['RUNTIME_DIR'] to a shorter one"
            )
        return replace(known, path=path)

    def __str__(self) -> str:
        if self.local is not None:
            return str(self.local)
        return self.path or (f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}")

    def read_token(self) -> str:
        """Return the token. A broker writes a new one at each start, so no connection reuses the last one's."""
        given = self.token or os.environ.get("SNAKEPIT_TOKEN", "")
        if given:
            return _checked(given.strip(), "SNAKEPIT_TOKEN" if not self.token else "token")
        if not self.path:
            if isinstance(self.tls, ssl.SSLContext) or (self.tls and self.tls.cert):
                return ""  # the client's certificate says who it is
            raise Unauthenticated(f"No API key for {self}: set SNAKEPIT_TOKEN, or pass key= to connect()")
        beside = Path(self.path).with_name(TOKEN)
        try:
            return _checked(beside.read_text().strip(), str(beside))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise Unauthenticated(
                f"The broker's token cannot be read from {beside} ({reason}): "
                "run as the broker's user, or set SNAKEPIT_TOKEN"
            ) from error


def _checked(token: str, source: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise Unauthenticated(f"{source} does not contain a token")
    return token


def default_address() -> str:
    """Return SNAKEPIT_ADDRESS, else the socket in the runtime directory of the Django project.

    BROKER_ADDRESS of the project replaces that socket. This reads only the settings; django.setup() is not needed.
    """
    if address := os.environ.get("SNAKEPIT_ADDRESS"):
        return address
    # Imported here: scripts that know their address need no Django.
    from django.conf import settings

    if not settings.configured and "DJANGO_SETTINGS_MODULE" not in os.environ:
        raise BrokerUnreachable(
            "No broker address is known: set SNAKEPIT_ADDRESS to the path of a broker's socket, "
            "or DJANGO_SETTINGS_MODULE to your project's settings",
            outcome="not_started",
        )
    from snakepit.pools.conf import current, follow_test, runtime_dir

    follow_test()
    return current().broker_address or str(runtime_dir() / SOCKET)


def find_target(address: str, token: str, tls: ssl.SSLContext | Tls | bool | None, connect_timeout: float) -> Target:
    """The target of `connect`. For a broker on a network, the environment and the project give the rest."""
    if TCP.fullmatch(address):
        settings = _project()
        if tls is None:
            tls = Tls.of_environment() or (Tls.of(settings.broker_tls) if settings else None)
        token = token or os.environ.get("SNAKEPIT_TOKEN", "") or (settings.broker_key if settings else "")
    return Target.parse(address, token, tls, connect_timeout)


def _project() -> Configuration | None:
    """The settings of the Django project, for a program that has one: scripts need no Django."""
    if "DJANGO_SETTINGS_MODULE" not in os.environ and "django.conf" not in sys.modules:
        return None
    from django.conf import settings

    if not settings.configured and "DJANGO_SETTINGS_MODULE" not in os.environ:
        return None
    from snakepit.pools.conf import current

    return current()
