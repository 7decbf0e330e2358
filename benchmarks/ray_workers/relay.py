"""Bytes between two connections, and lines of JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

CHUNK = 1 << 18

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


async def copy_both(one: Ends, other: Ends) -> None:
    """Copy both ways until one side ends; then close both."""
    tasks = {asyncio.ensure_future(_copy(one[0], other[1])), asyncio.ensure_future(_copy(other[0], one[1]))}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for _, writer in (one, other):
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
