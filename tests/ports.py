"""Ports for servers of tests, which no other process of any run takes between the choice and the server's start."""

from __future__ import annotations

import random
import socket

# Below the range from which the kernel takes ports for connections and for servers that name none (32768 on).
PORTS = range(15_000, 32_000)
_held: list[socket.socket] = []  # as long as this process lives


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on, and that no other call of this function gives meanwhile."""
    for port in random.SystemRandom().sample(PORTS, 1000):
        mark = socket.socket(socket.AF_UNIX)
        try:
            mark.bind(f"\0snakepit-test-port-{port}")  # one process of the machine can have it
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            mark.close()
            continue
        _held.append(mark)
        return port
    raise AssertionError("none of a thousand ports is free")
