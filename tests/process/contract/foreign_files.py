"""Replaces each descriptor of the client by a foreign file, as code does that closes a number which is then used again.

    python -m tests.process.contract.foreign_files ADDRESS KIND...

Prints one JSON object for each descriptor: what the calls ended with, and what happened to the foreign file.
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.client import connect, loop_thread

TRIES = 6
PATIENCE = 60.0  # a bound for a machine under load, never a wait


@dataclass
class Foreign:
    """A file of the caller's. `state` must not change."""

    number: int
    state: Callable[[], Any]
    kept: list[Any] = field(default_factory=list)


def regular(number: int) -> Foreign:
    file = tempfile.TemporaryFile()  # noqa: SIM115  (it is kept)
    file.write(b"theirs" * 1000)
    file.flush()
    os.lseek(file.fileno(), 7, os.SEEK_SET)
    os.dup2(file.fileno(), number)
    return Foreign(number, lambda: (os.fstat(number).st_size, os.lseek(number, 0, os.SEEK_CUR)), [file])


def stream(number: int) -> Foreign:
    return _pair(number, socket.SOCK_STREAM)


def datagram(number: int) -> Foreign:
    return _pair(number, socket.SOCK_DGRAM)


def _pair(number: int, kind: int) -> Foreign:
    mine, peer = socket.socketpair(socket.AF_UNIX, kind)
    peer.send(b"theirs")
    peer.setblocking(False)
    os.dup2(mine.fileno(), number)
    mine.close()

    def state() -> Any:
        with socket.socket(fileno=os.dup(number)) as copy:
            waits = copy.recv(100, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        try:
            return waits.decode(), peer.recv(1 << 16, socket.MSG_PEEK).decode("latin-1")
        except BlockingIOError:
            return waits.decode(), "nothing arrived"

    return Foreign(number, state, [peer])


def pipe(number: int) -> Foreign:
    read, write = os.pipe()
    os.write(write, b"theirs")
    os.dup2(read, number)
    os.close(read)
    waiting = select.poll()
    waiting.register(number, select.POLLIN)
    return Foreign(number, lambda: waiting.poll(0) == [(number, select.POLLIN)], [write])


def poll(number: int) -> Foreign:
    """An epoll, such as that of an event loop that the caller makes."""
    made = select.epoll()
    ends = socket.socketpair()
    made.register(ends[0], select.EPOLLIN)
    ends[1].send(b"theirs")
    os.dup2(made.fileno(), number)
    ours = ends[0].fileno()

    def state() -> Any:
        with open(f"/proc/self/fdinfo/{number}") as lines:
            watched = [line.split()[1] for line in lines if line.startswith("tfd:")]
        return watched == [str(ours)], made.poll(0) == [(ours, select.EPOLLIN)]

    return Foreign(number, state, [made, ends])


KINDS = {one.__name__: one for one in (regular, stream, datagram, pipe, poll)}


def descriptors() -> set[int]:
    return {number for number in map(int, os.listdir("/proc/self/fd")) if is_open(number)}  # without that of the list


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def end_loops() -> None:
    """End every loop of the client, and wait until each has closed its descriptors.

    The client waits a bounded time. A descriptor that is closed later makes its number free in the middle of a try.
    """
    loop_thread.stop()
    for loop in loop_thread._alive.copy():
        assert loop.thread is not None
        loop.thread.join(PATIENCE)
        assert not loop.thread.is_alive()
    gc.collect()


def main(address: str, kind: str) -> None:
    kept: list[Foreign] = []
    for index in count():
        end_loops()  # the next call makes all descriptors anew
        before = descriptors()
        client = connect(address, connect_timeout=PATIENCE)
        client.call("echo", "echo", {"value": 1})
        own = sorted(descriptors() - before)
        if index >= len(own):
            return
        if index % 2:
            time.sleep(0.05)  # the background thread then waits on the descriptors
        link = os.readlink(f"/proc/self/fd/{own[index]}").partition(":")[0]
        one = KINDS[kind](own[index])
        kept.append(one)
        at_first = one.state()
        ends = calls(client)
        client.close()
        end_loops()
        try:
            now = one.state()
        except OSError as error:
            now = repr(error)
        print(json.dumps({"kind": kind, "link": link, "ends": ends, "before": at_first, "after": now}), flush=True)


def calls(client: Any) -> list[str]:
    """Call until a call has its result."""
    ends: list[str] = []
    while len(ends) < TRIES and (not ends or ends[-1] != "result"):
        try:
            client.call("echo", "echo", {"value": 2}, timeout=600)
            ends.append("result")
        except BrokerError as error:
            ends.append(error.code)
    return ends


if __name__ == "__main__":
    for given in sys.argv[2:]:
        main(sys.argv[1], given)
