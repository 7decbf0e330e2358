"""The HTTP protocol of uvicorn, with a time limit for the headers of a connection and a bound on what it buffers.

uvicorn ends an idle connection after a response, but waits without end for the first request: connections that send
nothing, or one byte a minute, stay. It also reads a body before the application asks for it. `uvicorn --http
snakepit.site.http:Protocol` ends such connections, and reads a body when the application receives it.
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
    """Bound what one read returns. With the kernel's default, each of hundreds of large bodies takes megabytes."""
    opened = transport.get_extra_info("socket")
    if opened is not None:
        with contextlib.suppress(OSError):  # closed meanwhile
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)


class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Closes a connection whose first request has not begun in time, and reads no body that the application ignores."""

    _idle: asyncio.TimerHandle

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        limit_buffer(transport)
        self._idle = self.loop.call_later(HEADER_SECONDS, self.close_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        self._idle.cancel()  # it would keep this object and its buffers until its time
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:  # uvicorn leaves it after a reset
            self.timeout_keep_alive_task.cancel()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before and self.cycle.more_body and not self.transport.is_closing():
            self.flow.pause_reading()  # until the application receives; a refused body is never read

    def close_idle(self) -> None:
        """Close the connection if the headers of its first request are not complete."""
        transport: asyncio.Transport = self.transport
        if self.cycle is None and not transport.is_closing():
            transport.close()
