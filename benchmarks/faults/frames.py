"""Malformed bytes at three depths: no HTTP/2 at all, frames that make no sense, and messages that are no message."""

from __future__ import annotations

import math
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import h2.config
import h2.connection
import h2.exceptions

from snakepit.pools.wire import broker_pb2 as pb
from snakepit.workers.wire import worker_pb2 as worker

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
METHODS = (
    *("Session", "Session", "Session", "Execute", "ExecuteStream", "Status", "Commands", "Sweep", "Metrics"),
    *("Plan", "Dump", "Kill", "Recycle", "Unknown"),
)
PATIENCE = 1.0  # seconds for a reply that may never come


def numbers(chance: random.Random) -> int:
    return chance.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, chance.getrandbits(64)])


def seconds(chance: random.Random) -> float:
    return chance.choice([0.0, -1.0, 1e308, math.inf, -math.inf, math.nan, chance.random()])


def request(chance: random.Random) -> bytes:
    """A message of a client: well formed, with values that make no sense."""
    message = pb.Requests()
    for _ in range(chance.randrange(1, 5)):
        one = message.requests.add()
        kind = chance.randrange(4)
        if kind == 0:
            one.call.ref, one.call.pool, one.call.command = numbers(chance), "p", "double"
            one.call.arguments = chance.choice([b"{", b"[]", b"\xff", b'{"number": 1e999}', b"[" * 500])
            one.call.timeout, one.call.priority = seconds(chance), chance.choice([-(2**31), 2**31 - 1, 0])
            one.call.credit, one.call.credit_bytes = numbers(chance) % 2**32, numbers(chance)
        elif kind == 1:
            one.calls.refs.extend(numbers(chance) for _ in range(chance.randrange(4)))
            one.calls.arguments.extend(b"{}" for _ in range(chance.randrange(4)))
            one.calls.pool, one.calls.command, one.calls.timeout = "p", "double", seconds(chance)
        elif kind == 2:
            one.cancel.ref = numbers(chance)
        else:
            one.credit.ref, one.credit.chunks = numbers(chance), numbers(chance) % 2**32
    return message.SerializeToString()


def reports(chance: random.Random) -> bytes:
    """A message of a worker: well formed, with values that make no sense."""
    message = worker.Reports()
    for _ in range(chance.randrange(1, 5)):
        one = message.reports.add()
        kind = chance.randrange(6)
        if kind == 0:
            one.results.sequences.extend(numbers(chance) for _ in range(chance.randrange(4)))
            one.results.json.extend(b"\xff" for _ in range(chance.randrange(4)))
        elif kind == 1:
            one.hello.protocol = 1
            one.hello.commands.add(name="x" * 1000, timeout=seconds(chance), schema="{")
        elif kind == 2:
            one.delivered.sequence, one.delivered.seconds = numbers(chance), seconds(chance)
        elif kind == 3:
            one.failure.sequence, one.failure.code, one.failure.details = numbers(chance), "none", "{"
        elif kind == 4:
            one.progress.sequence, one.progress.fraction = numbers(chance), seconds(chance)
        else:
            one.revoked.sequence = numbers(chance)
    return message.SerializeToString()


def flipped(message: bytes, chance: random.Random) -> bytes:
    """The message, or the message with some bytes changed."""
    changed = bytearray(message)
    for _ in range(chance.randrange(4) if changed else 0):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def framed(message: bytes, chance: random.Random) -> bytes:
    """With gRPC's five bytes before it, which do not always tell the truth."""
    size = len(message) if chance.random() < 0.8 else numbers(chance) % 2**32
    return struct.pack("!BI", 0 if chance.random() < 0.9 else chance.randrange(256), size) + message


def frames(chance: random.Random) -> bytes:
    """HTTP/2 frames with random types, flags, streams and lengths."""
    made = b""
    for _ in range(chance.randrange(1, 8)):
        body = chance.randbytes(chance.randrange(40))
        size = len(body) if chance.random() < 0.7 else chance.getrandbits(24)
        head = struct.pack("!I", size)[1:] + bytes([chance.randrange(12), chance.randrange(256)])
        made += (
            head + struct.pack("!I", chance.getrandbits(32) if chance.random() < 0.3 else chance.randrange(8)) + body
        )
    return made


def attacks(path: Path, token: str, chance: random.Random) -> Iterator[str]:
    """Send one malformed connection after another; yield what each was."""
    while True:
        with closing(socket.socket(socket.AF_UNIX)) as sock:
            sock.settimeout(PATIENCE)
            with suppress(OSError, h2.exceptions.ProtocolError):
                sock.connect(str(path))
                kind = chance.choice(("bytes", "frames", "messages", "messages"))
                if kind == "bytes":
                    sock.sendall(chance.randbytes(chance.randrange(1, 5000)))
                elif kind == "frames":
                    sock.sendall(PREFACE + frames(chance))
                else:
                    _speak(sock, token, chance)
        yield kind


def _speak(sock: socket.socket, token: str, chance: random.Random) -> None:
    """A connection and a stream in order, with malformed messages; read until the broker ends it, or leave."""
    link = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    link.initiate_connection()
    head = {":method": "POST", ":scheme": "http", ":authority": "x"}
    head |= {":path": f"/snakepit.broker.v1.Broker/{chance.choice(METHODS)}"}
    head |= {"te": "trailers", "content-type": "application/grpc", "authorization": f"Bearer {token}"}
    link.send_headers(1, list(head.items()))
    for _ in range(chance.randrange(1, 4)):
        link.send_data(1, framed(flipped(request(chance), chance), chance))
    if chance.random() < 0.7:
        link.end_stream(1)
    sock.sendall(link.data_to_send())
    if chance.random() < 0.5:
        sock.recv(65536)
