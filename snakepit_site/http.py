"""The HTTP protocol of uvicorn, with a time limit for the headers of a connection and a bound on what it buffers.

uvicorn ends an idle connection after a response, but waits without end for the first request: connections that send
nothing, or one byte a minute, stay. `uvicorn --http snakepit.site.http:Protocol` ends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

RECEIVE_BYTES = 65_536  # of one connection that the kernel keeps; the HTTP parser makes copies of what it reads
HEADER_SECONDS = 15.0  # from the connection to the end of the first request's headers


def limit_buffer(transport: Any) -> None:
    """Bound what one read returns. With the kernel's default, hundreds of large bodies take megabytes each at once."""
    opened = transport.get_extra_info("socket")
    if opened is not None:
        with contextlib.suppress(OSError):  # closed meanwhile
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)


class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Closes a connection whose first request has not begun in time."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        limit_buffer(transport)
        self.loop.call_later(HEADER_SECONDS, self.close_idle)

    def close_idle(self) -> None:
        """Close the connection if the headers of its first request are not complete."""
        transport: asyncio.Transport = self.transport
        if self.cycle is None and not transport.is_closing():
            transport.close()
