"""The broker's socket for large arguments finds the parts of a call, in whatever order they and their calls come."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from snakepit.pools.adapters.grpc.buffer_intake import BufferIntake
from snakepit.pools.broker.errors import BadRequest
from snakepit.workers.buffers import LARGEST_INLINE, rights
from snakepit.workers.memory_file import MemoryFile


async def test_a_call_finds_its_parts_among_those_of_others(tmp_path: Path) -> None:
    path = tmp_path / "buffers.sock"
    intake, file = BufferIntake(path), MemoryFile()
    file.append(b"in a file")

    def send(number: int, data: bytes, *files: int) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:  # the buffer of one holds few of them
            client.sendmsg([number.to_bytes(8, "little"), data], rights(files), 0, str(path))

    try:
        send(1, b"1" * LARGEST_INLINE)
        send(2, b"2" * LARGEST_INLINE)
        send(3, bytes(LARGEST_INLINE + 1))  # too large: cut off
        send(4, b"", file.descriptor)
        send(5, b"last")
        session = intake.session()
        assert intake.claim(2, session) == b"2" * LARGEST_INLINE
        with pytest.raises(BadRequest, match="did not arrive"):
            intake.claim(3, session)
        with pytest.raises(BadRequest, match="not sealed"):
            intake.claim(4, session)
        assert intake.claim(1, session) == b"1" * LARGEST_INLINE
        assert intake.claim(5, session) == b"last"
        with pytest.raises(BadRequest, match="did not arrive"):
            intake.claim(1, session)
    finally:
        intake.close()
