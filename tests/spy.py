"""An adapter that reads what it can: the tests of users and secrets call it. It needs the standard library alone."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from typing import Any

from snakepit.workers import Adapter, command


class Spy(Adapter):
    thread_safe = True

    @command
    def look(self, paths: list[str]) -> dict[str, str]:
        """What happens when each path is read: the error's name, or the content."""
        return {path: attempt(lambda: read(path)) for path in paths}  # noqa: B023

    @command
    def reach(self, address: str, pid: int) -> dict[str, str]:
        """What happens when a socket is connected to, and when a process is sent a signal."""
        with socket.socket(socket.AF_UNIX) as client:
            connected = attempt(lambda: client.connect(address))
        return {"connect": connected, "signal": attempt(lambda: os.kill(pid, 0))}

    @command
    def connect(self, host: str, port: int) -> str:
        """What happens when a TCP connection is opened, and a datagram is sent."""
        with socket.socket() as client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            opened = attempt(lambda: client.connect((host, port)))
            return f"{opened} {attempt(lambda: datagrams.sendto(b'x', (host, port)))}"

    @command
    def write(self, path: str) -> str:
        """What happens when a file is written, truncated and removed."""
        return " ".join(
            (attempt(lambda: write(path)), attempt(lambda: os.truncate(path, 0)), attempt(lambda: os.unlink(path)))
        )

    @command
    def me(self) -> dict[str, Any]:
        with open("/proc/self/status") as file:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        with tempfile.NamedTemporaryFile() as file:
            names = file.name, os.path.expanduser("~/home")
        keys = ("Uid", "Gid", "Groups", "NoNewPrivs", "CapInh", "CapPrm", "CapEff", "CapAmb")
        return {key: fields[key].split() for key in keys} | {"files": names, "env": sorted(os.environ)}


class PreloadedSpy(Spy):
    @classmethod
    def preload(cls) -> None:
        cls.loaded = os.getpid()


def attempt(action: Callable[[], Any]) -> str:
    try:
        return str(action())
    except OSError as error:
        return type(error).__name__


def write(path: str) -> None:
    with open(path, "w") as file:
        file.write("x")


def read(path: str) -> str:
    if os.path.basename(path) in ("fd", "task") or os.path.isdir(path):
        return " ".join(os.listdir(path))
    with open(path, "rb") as file:
        return file.read(65_536).decode("latin-1")
