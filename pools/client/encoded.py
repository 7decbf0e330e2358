"""Values that a program passes on without making them: arguments in parts, and results as their tags and bytes.

     Spool ─▶ bytes, or a part of a memory file ─▶ Json, with `buffers` beside it
     the reply ──▶ Encoded: the tree of the result, and Part: its bytes in memory, or where they are in a file

A web server that passes on a body of 100 MB thereby never has it in its own memory, and needs no library of its type.

>>> found = Encoded.parse(b'{"@typed":{"$ndarray":["<f8",[2],"AAAAAAAA8D8AAAAAAADwPw=="]}}')
>>> found.tag, found.content[:2], found.part(found.content[2]).size
('$ndarray', ['<f8', [2]], 16)
>>> Encoded.parse(b'{"label":7}').value()
{'label': 7}
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from snakepit.pools.broker.errors import ResultUnreadable
from snakepit.pools.client.arguments import PASSES_BUFFERS
from snakepit.pools.client.call_messages import Delivered, Packed, decode
from snakepit.pools.wire.broker_pb2 import Result
from snakepit.workers.buffers import COPIED, LARGEST_INLINE, TAG, BufferInvalid, Incoming, Outgoing
from snakepit.workers.memory_file import MemoryFile
from snakepit.workers.schema import typed
from snakepit.workers.schema.not_carried import NotCarried

CHUNK = 256 * 1024  # bytes that one read returns
MALFORMED = "The result cannot be read: {}."


class Spool:
    """The parts of one call's arguments, as they arrive. Beyond LARGEST_INLINE a part is in a memory file."""

    def __init__(self) -> None:
        self._file: MemoryFile | None = None

    def writer(self) -> PartWriter:
        """A new part. The one before must be complete."""
        return PartWriter(self)

    def file(self) -> MemoryFile:
        """The memory file of all large parts. Raises OSError where none can be made."""
        if self._file is None:
            self._file = MemoryFile()
        return self._file

    @property
    def buffers(self) -> Outgoing | None:
        return Outgoing.holding(self._file) if self._file else None


class PartWriter:
    """Takes one part piece by piece."""

    def __init__(self, spool: Spool) -> None:
        self.size = 0
        self._spool = spool
        self._memory = bytearray()
        self._file: MemoryFile | None = None
        self._at = 0

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self._file is None:
            self._memory += data
            if self.size <= LARGEST_INLINE or not PASSES_BUFFERS:
                return
            self._file, data = self._spool.file(), bytes(self._memory)
            self._memory.clear()
            self._at = self._file.append(data)
        else:
            self._file.extend(data)

    def head(self, size: int) -> bytes:
        """The first bytes of the part."""
        return os.pread(self._file.descriptor, size, self._at) if self._file else bytes(self._memory[:size])

    def value(self) -> bytes | dict[str, Any]:
        """The argument: bytes, or the tag of a part."""
        return {"$bytes": self.content(0)} if self._file else bytes(self._memory)

    def content(self, start: int) -> Any:
        """What a tag has for the bytes from `start` on."""
        if self._file is not None:
            return {TAG: [COPIED, self._at + start, self.size - start]}
        return b64encode(memoryview(self._memory)[start:]).decode("ascii")


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes: in memory, or in a memory file at `offset`."""

    size: int
    memory: bytes = b""
    descriptor: int = -1
    offset: int = 0

    def chunks(self) -> Iterator[bytes]:
        """The bytes, read piece by piece: a map would count as memory of this process."""
        at, end = self.offset, self.offset + self.size
        while at < end:
            if self.descriptor >= 0:
                found = os.pread(self.descriptor, min(CHUNK, end - at), at)
            else:
                found = self.memory[at : min(at + CHUNK, end)]
            if not found:
                raise OSError("a buffer ended early")
            yield found
            at += len(found)


class Encoded:
    """A result as it came. `tag` is that of the whole value, empty for what JSON has."""

    __slots__ = ("_buffers", "_data", "_raw", "_tree")

    def __init__(self, tree: Any, data: bytes, buffers: Incoming | None = None, raw: bytes | None = None) -> None:
        self._tree, self._data, self._buffers, self._raw = tree, data, buffers, raw

    @classmethod
    def parse(cls, data: bytes, buffers: Incoming | None = None) -> Encoded:
        tree = json.loads(data)
        return cls(tree[typed.NAME] if data.startswith(typed.WRAPPER) else {typed.NAME: tree}, data, buffers)

    @classmethod
    def of(cls, reply: Result | Packed | Delivered) -> Encoded:
        """The result of a reply. Raises ResultUnreadable."""
        if isinstance(reply, Packed):
            return cls.parse(reply.json)
        if isinstance(reply, Delivered):
            return cls.parse(*reply.checked())
        if reply.value.WhichOneof("value") == "json":
            return cls.parse(reply.value.json)
        value = decode(reply.value)
        return cls({"$bytes": ""}, b"", raw=value) if isinstance(value, bytes) else cls.parse(b"null")

    @property
    def tag(self) -> str:
        tree = self._tree
        return next(iter(tree)) if isinstance(tree, dict) and len(tree) == 1 and next(iter(tree))[:1] == "$" else ""

    @property
    def content(self) -> Any:
        return self._tree[self.tag]

    def part(self, content: Any) -> Part:
        """The bytes that a tag has. Raises ResultUnreadable: the text may name anything."""
        if self._raw is not None:
            return Part(len(self._raw), self._raw)
        try:
            if isinstance(content, str):
                found = a2b_base64(content, strict_mode=True)
                return Part(len(found), found)
            number, offset, size = content[TAG]
            if self._buffers is None:
                raise ValueError("its buffers did not arrive")
            place = self._buffers.place(number, offset, size)
        except (BufferInvalid, ValueError, TypeError, KeyError) as problem:
            raise ResultUnreadable(MALFORMED.format(problem)) from None
        if isinstance(place, int):
            return Part(size, descriptor=place, offset=offset)
        return Part(size, bytes(place))

    def value(self) -> Any:
        """The value itself, for which the library of its type is needed. Raises ResultUnreadable."""
        if self._raw is not None:
            return self._raw
        if not self._data.startswith(typed.WRAPPER):
            return self._tree[typed.NAME]
        try:
            return typed.restore({typed.NAME: self._tree}, self._buffers)
        except (NotCarried, BufferInvalid) as problem:
            raise ResultUnreadable(f"{problem}.") from None

    def close(self) -> None:
        """Close the descriptors."""
        if self._buffers is not None:
            self._buffers.close()
