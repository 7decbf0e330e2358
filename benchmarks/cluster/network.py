"""Hosts made of namespaces: a switch, and a network with one address for each host. Linux, as root.

Each host also has a mount namespace, with an empty directory of its own at the same path on all hosts. So a Unix socket
there is only on its host, as in containers.

services 10.213.0.10 ─┐
a        10.213.0.11 ─┤
b        10.213.0.12 ─┼─ bridge, in a namespace of its own ─ this machine 10.213.0.1
c        10.213.0.13 ─┤
callers  10.213.0.20 ─┘
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PREFIX = "snakepit"
SWITCH = f"{PREFIX}-switch"
HERE = "10.213.0.1"  # the address of this machine's own namespace: the reader's browser
MASK = "/24"
NETWORK = "10.213.0.0/24"
CLIENT = "hosts.cluster"  # the name in the certificate of each client
OBEY = 10.0  # seconds for all programs to end after SIGTERM
PATIENCE = 30.0  # a bound for a machine under load, never a wait
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Host:
    name: str
    address: str

    @property
    def namespace(self) -> str:
        return f"{PREFIX}-{self.name}"

    @property
    def port(self) -> str:
        """The end of its cable in the switch. Names of interfaces have at most 15 characters."""
        return f"sp-{self.name}"[:15]


SERVICES = Host("services", "10.213.0.10")
HOSTS = (Host("a", "10.213.0.11"), Host("b", "10.213.0.12"), Host("c", "10.213.0.13"))
CALLERS = Host("callers", "10.213.0.20")
EVERY = (SERVICES, *HOSTS, CALLERS)


def missing() -> str:
    """What this machine lacks for namespaces; empty: nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    programs = {"ip": "iproute2", "nsenter": "util-linux", "mount": "mount"}
    absent = [
        f"{name} is not installed (package {package})" for name, package in programs.items() if not shutil.which(name)
    ]
    return "; ".join(absent)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Network:
    """The namespaces, from entry to exit. Only one at a time on a machine. `own`: the directory that each host has."""

    def __init__(self, own: Path) -> None:
        self.own = own
        self._sleepers: dict[Host, subprocess.Popen[bytes]] = {}
        self._programs: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Network:
        if lacks := missing():
            raise RuntimeError(lacks)
        remove()  # what a run that was killed has left
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _build(self) -> None:
        _ip("netns", "add", SWITCH)
        _ip("-n", SWITCH, "link", "add", "bridge", "type", "bridge")
        _ip("-n", SWITCH, "link", "set", "bridge", "up")
        for host in EVERY:
            self._plug_in(host)
        _ip("link", "add", "sp-here", "type", "veth", "peer", "name", "sp-switch", "netns", SWITCH)
        _ip("address", "add", HERE + MASK, "dev", "sp-here")
        _ip("link", "set", "sp-here", "up")
        self._attach("sp-switch")

    def __exit__(self, *_: object) -> None:
        with uninterrupted():
            self._end()

    def _end(self) -> None:
        end(self._programs)
        for process in self._sleepers.values():
            process.kill()
            process.wait()
        remove()

    def _plug_in(self, host: Host) -> None:
        _ip("netns", "add", host.namespace)
        _ip("-n", SWITCH, "link", "add", host.port, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
        _ip("-n", host.namespace, "address", "add", host.address + MASK, "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", host.namespace, "link", "set", device, "up")
        self._attach(host.port)
        self._sleepers[host] = self._start_sleeper(host)

    def _start_sleeper(self, host: Host) -> subprocess.Popen[bytes]:
        """A process that keeps the namespaces of a host, which its programs enter."""
        script = 'mount -t tmpfs -o mode=0700 snakepit "$0" && echo ready && exec sleep infinity'
        command = ["ip", "netns", "exec", host.namespace, "sh", "-c", script, str(self.own)]
        sleeper = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
        assert sleeper.stdout
        with sleeper.stdout as output:
            if output.readline() != b"ready\n":
                raise RuntimeError(f"the host {host.name} has no directory of its own at {self.own}")
        return sleeper

    def _attach(self, port: str) -> None:
        _ip("-n", SWITCH, "link", "set", port, "master", "bridge")
        _ip("-n", SWITCH, "link", "set", port, "up")

    def start(
        self, host: Host, command: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | int
    ) -> subprocess.Popen[bytes]:
        """Start a program on a host, in a process group of its own. Its pid is that of the program."""
        within = ["nsenter", "--target", str(self._sleepers[host].pid), "--mount", "--net", "--", *command]
        process = subprocess.Popen(
            within, env=dict(environment), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        self._programs.append(process)
        return process

    def lose_packets(self, host: Host) -> None:
        """Drop all packets to and from a host: unplug it from the bridge. Its connections stay open on both sides.

        The queueing discipline `netem` does the same, but not every kernel has it.
        """
        _ip("-n", SWITCH, "link", "set", host.port, "nomaster")

    def mend(self, host: Host) -> None:
        self._attach(host.port)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A second Ctrl-C must not leave namespaces behind."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end(programs: Sequence[subprocess.Popen[bytes]]) -> None:
    """End programs together; the whole group of one that does not obey."""
    for process in programs:
        process.terminate()
    until = time.monotonic() + OBEY
    for process in programs:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def remove() -> None:
    """Delete the namespaces of this module, with all interfaces in them. Processes in them are the caller's to end."""
    # The link first: the kernel deletes a namespace, and with it the other end, some time after `ip` has returned.
    if Path("/sys/class/net/sp-here").exists():
        _ip("link", "del", "sp-here")
    existing = {path.name for path in Path("/run/netns").iterdir()} if Path("/run/netns").exists() else set()
    for name in (SWITCH, *(host.namespace for host in EVERY)):
        if name in existing:
            _ip("netns", "del", name)
