"""The HTTP protocol of uvicorn, with a time limit for the headers of a connection.

uvicorn ends an idle connection after a response, but waits without end for the first request: connections that send
nothing, or one byte a minute, stay. `uvicorn --http snakepit.site.http:Protocol` ends them.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEADER_SECONDS = 15.0  # from the connection to the end of the first request's headers


class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Closes a connection whose first request has not begun in time."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.loop.call_later(HEADER_SECONDS, self.close_idle)

    def close_idle(self) -> None:
        """Close the connection if the headers of its first request are not complete."""
        transport: asyncio.Transport = self.transport
        if self.cycle is None and not transport.is_closing():
            transport.close()
