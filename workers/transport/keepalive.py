"""Notices a peer on a network connection that is gone or frozen, within 8 seconds.

    every second: silence of the peer ─▶ Liveness ─▶ nothing, a ping, or the end of the connection

A peer whose machine or link is lost closes nothing, so its silence is the only sign. The kernel has the time of the
last bytes from the peer. So a large message that arrives slowly does not count as silence, although the answer to a
ping waits behind it. Messages take the same path as without a keepalive.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

TICK = 1.0  # seconds
PING_AFTER = 2.0  # seconds of silence until a ping is sent
DEAD_AFTER = 4  # ticks without any bytes after the ping
LAST_RECEIVED = 52  # offset of tcpi_last_data_recv in the kernel's struct tcp_info: milliseconds


class Liveness:
    """Decides what to do about a peer that has been silent.

    >>> liveness = Liveness()
    >>> [liveness.tick(silent) for silent in (0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5)]
    ['', '', 'ping', '', '', '', 'dead']
    >>> liveness.tick(0.2)
    ''
    """

    def __init__(self) -> None:
        self._waited = -1  # ticks since the ping; -1: no ping waits for an answer

    def tick(self, silent: float) -> str:
        """Return "ping", "dead" or nothing, for a peer that sent nothing for `silent` seconds."""
        if silent < PING_AFTER:
            self._waited = -1
            return ""
        self._waited += 1  # ticks, and not the clock: a process that was stopped itself counts from its return
        if self._waited == 0:
            return "ping"
        return "dead" if self._waited >= DEAD_AFTER else ""


def silence(transport: Any) -> float:
    """Return for how many seconds the peer of a TCP connection has sent nothing; 0: this is not known here."""
    if not sys.platform.startswith("linux"):
        return 0.0
    try:
        info = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        milliseconds: int = struct.unpack_from("@I", info, LAST_RECEIVED)[0]
    except (OSError, AttributeError, struct.error):  # the connection is closed, or the kernel has another struct
        return 0.0
    return milliseconds / 1000


class Keepalive:
    """Watches one connection on its loop. `ping` sends a ping; a dead peer's connection is aborted."""

    def __init__(self, transport: Any, ping: Callable[[], None]) -> None:
        self._transport = transport
        self._ping = ping
        self._liveness = Liveness()
        self.found_dead = False

    def tick(self) -> None:
        """Check the connection now. Call it every TICK seconds."""
        if self._transport.is_closing():
            return
        decided = self._liveness.tick(silence(self._transport))
        if decided == "ping":
            self._ping()
        elif decided == "dead":
            self.found_dead = True
            self._transport.abort()  # close() would wait until the peer has taken what was written

    def run(self) -> None:
        """Tick until the connection ends."""
        if not self._transport.is_closing():
            self.tick()
            asyncio.get_running_loop().call_later(TICK, self.run)
