"""Large parts of a value in sealed memory files, whose descriptors travel between processes instead of the bytes.

     Outgoing.add(data) ──▶ [file, offset, length] in the text     seal ──▶ descriptors beside the message
     Incoming.view([file, offset, length]) ──▶ a map of that part, after its seals and its size were checked

Some ten kilobytes travel in the message itself, as they are: there a memory file costs more than two copies.

A memory file is a memfd of Linux. It is sealed before it is sent, so a map of it cannot end with SIGBUS. The map is
private: what the receiver writes there is its own. A part that its receiver checks and then relies on, such as a table,
is *final*: its file is sealed against every change, for good. Numbers and bytes may be in a file that its sender writes
again when no receiver has it any more (kept_files.py).

>>> outgoing = Outgoing(10**6)
>>> part = outgoing.add(b"x" * 70_000)
>>> part, bytes(outgoing.view(part)[:3])
([64, 0, 70000], b'xxx')
>>> outgoing.inlined(b'{"$bytes":{"$buffer":[64,0,70000]}}')[:20]
b'{"$bytes":"eHh4eHh4e'
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import math
import mmap
import os
import re
import socket
import sys
import weakref
from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Any

from snakepit.workers.kept_files import KEPT_SEALS, close, files, inode
from snakepit.workers.memory_file import WRITE_BYTES, KeptCopy, MemoryFile, PlacedFile, aligned, seals

THRESHOLD = 8 * 1024  # bytes; a smaller part is base64 in the text
FILE_FROM = 64 * 1024  # bytes of a text, or of an array that a command computes in place, that get a file of their own
LARGEST_INLINE = 112 * 1024  # bytes of all parts in the message itself: a datagram above 128 KiB costs more than a file
LARGEST = 2**36  # bytes that one file may have, whatever its pool allows
MOST_FILES = 64  # of one value; the kernel passes at most 253 descriptors in one message
COPIED = MOST_FILES  # the number of the file that has all copied parts, apart from those in kept files
MOST_KEPT = 8  # kept files of one value
TAG = "$buffer"
_WHOLE = frozenset({int})
ATTACHMENT = "$buffer"  # the copied parts of arguments, where they are an attachment; no argument has this name
_PART = re.compile(rb'\{"\$buffer":\[(\d+),(\d+),(\d+)\]\}')  # not in a string of JSON: there a quote is escaped
ROOM = socket.CMSG_SPACE(MOST_FILES * array.array("i").itemsize) if hasattr(socket, "CMSG_SPACE") else 0


Mark = tuple[int, int, int]


class BufferInvalid(ValueError):
    """A descriptor that arrived is not what its message says."""


class BufferTooLarge(Exception):
    """The parts of a value have more bytes than the pool allows in buffers."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"the buffers have {size:,} bytes and the pool's max_buffer is {limit:,}; raise max_buffer")
        self.size, self.limit = size, limit


class Outgoing:
    """The large parts of one value that is sent.

    Parts that are copied are kept together: in `inline` while they are small, and in one memory file beyond that. A
    large one that is not final has a kept file of its own. An array that a command computed in a memory file stays
    there. `file_from`: where the file begins; infinite: never.
    """

    __slots__ = ("_copied", "_placed", "file_from", "inline", "limit", "placed", "size")

    def __init__(self, limit: int, placed: Sequence[PlacedFile] = (), *, file_from: float = LARGEST_INLINE) -> None:
        self.limit = limit
        self.file_from = file_from
        self.size = 0
        self.inline = bytearray()
        self.placed: list[MemoryFile] = []  # those that the value has, and kept files
        self._placed = placed  # those of the call
        self._copied: MemoryFile | None = None

    @classmethod
    def holding(cls, file: MemoryFile) -> Outgoing:
        """The parts that were written to a file before; each is in the file COPIED."""
        made = cls(LARGEST)
        made._copied, made.size = file, file.size
        return made

    @property
    def is_used(self) -> bool:
        return self.size > 0

    @property
    def files(self) -> list[MemoryFile]:
        """The memory files, the one with the copied parts last."""
        return [*self.placed, self._copied] if self._copied else [*self.placed]

    def check(self, size: int) -> None:
        """Raise BufferTooLarge if a part of this size does not fit any more."""
        if self.size + size > self.limit:
            raise BufferTooLarge(self.size + size, self.limit)

    def add(self, data: Any, *, final: bool = True) -> list[int]:
        """Take the bytes of a part; return its file, offset and length. Raises OSError where no file can be made."""
        view = memoryview(data)
        size = view.nbytes
        self.check(size)
        at = self._place_of(data, size, final=final) or (None if final else self._keep(view, size))
        if at is None:
            at = COPIED, self._append(view if view.c_contiguous else view.tobytes(), size)
        self.size += size
        return [*at, size]

    def _place_of(self, data: Any, size: int, *, final: bool) -> tuple[int, int] | None:
        """Where the part is already, if a command computed it in a file of this call."""
        facts = getattr(data, "__array_interface__", None) if self._placed else None
        for one in self._placed:
            if facts and facts["data"][0] == one.address and size == one.size:
                if one not in self.placed:
                    self.placed.append(one)
                one.is_final = one.is_final or final
                return self.placed.index(one), 0
        return None

    def _keep(self, view: memoryview, size: int) -> tuple[int, int] | None:
        """Copy a part into a kept file. None: it is too small or too large for one, or there are enough."""
        if self.file_from < math.inf and len(self.placed) < MOST_KEPT and (kept := files.take(size)):
            with contextlib.suppress(OSError):  # no descriptor or no memory for it
                self.placed.append(KeptCopy(kept, view.cast("B") if view.c_contiguous else memoryview(view.tobytes())))
                return len(self.placed) - 1, 0
        return None

    def _append(self, data: Any, size: int) -> int:
        if self._copied is None:
            at = aligned(len(self.inline))
            if at + size <= self.file_from:
                self.inline.extend(bytes(at - len(self.inline)))
                self.inline.extend(memoryview(data).cast("B"))
                return at
            file = MemoryFile()
            file.append(self.inline)
            self._copied, self.inline = file, bytearray()
        return self._copied.append(data)

    def mark(self) -> Mark:
        """Note what is there, for `cut`."""
        return self.size, self._copied.size if self._copied else len(self.inline), len(self.placed)

    def cut(self, mark: Mark) -> None:
        """Drop the parts that were added since the mark."""
        self.size, end, files_before = mark
        for file in self.placed[files_before:]:
            if isinstance(file, KeptCopy):
                file.close()
        del self.placed[files_before:]
        if self._copied:
            self._copied.cut(end)
        else:
            del self.inline[end:]

    def view(self, part: Sequence[int], *, final: bool = True) -> Any:
        """The bytes of a part, which do not change before this object is closed."""
        number, offset, size = part
        if number == COPIED and self._copied is None:
            return bytes(self.inline[offset : offset + size])
        file = self._copied if number == COPIED and self._copied else self.placed[number]
        return memoryview(_map(file.descriptor, offset + size))[offset:]

    def collect(self) -> None:
        """Leave no parts in the message itself beside files. Raises OSError where no file can be made."""
        if self.placed and self.inline:
            file = MemoryFile()
            file.append(self.inline)
            self._copied, self.inline = file, bytearray()

    def copied(self) -> bytes:
        """The copied parts, for a receiver that gets them beside the text."""
        return bytes(self.view((COPIED, 0, self._copied.size))) if self._copied else bytes(self.inline)

    def together(self, text: bytes) -> tuple[bytes, bytes]:
        """The text with all parts in COPIED, and their bytes, for a receiver that gets them beside the text."""
        data = bytearray(self.copied())

        def moved(found: re.Match[bytes]) -> bytes:
            number, offset, size = (int(one) for one in found.groups())
            if number == COPIED:
                return found[0]
            at = aligned(len(data))
            data.extend(bytes(at - len(data)))
            data.extend(self.view((number, offset, size)))
            return b'{"$buffer":[%d,%d,%d]}' % (COPIED, at, size)

        return (_PART.sub(moved, text) if self.placed else text), bytes(data)

    def inlined(self, text: bytes) -> bytes:
        """The text with the bytes of each part in base64, for a receiver without descriptors."""
        return _PART.sub(lambda found: b'"%s"' % b64encode(self.view([int(one) for one in found.groups()])), text)

    def seal(self) -> list[int]:
        """Make the files final; return their descriptors."""
        files = self.files
        for file in files:
            file.seal()
        return [file.descriptor for file in files]

    def close(self) -> None:
        for file in self.files:
            file.close()


class Incoming:
    """The descriptors that arrived beside a message. They are closed with the object at the latest."""

    __slots__ = ("_inodes", "_maps", "descriptors", "inline")

    def __init__(self, descriptors: Iterable[int] = (), inline: bytes | bytearray = b"") -> None:
        """`inline`: the copied parts, if they came in the message itself. In a bytearray the receiver may write."""
        self.descriptors: list[int] = []
        self._inodes: dict[int, int] = {}
        self.inline: bytes | bytearray = inline
        self._maps: dict[int, memoryview] = {}
        for descriptor in descriptors:
            self.add(descriptor)

    def add(self, descriptor: int) -> None:
        """Take over one more descriptor."""
        self.descriptors.append(descriptor)
        self._inodes[descriptor] = inode(descriptor)

    def __len__(self) -> int:
        return len(self.descriptors)

    def view(self, part: object, *, final: bool = True) -> memoryview:
        """The bytes of a part. Raises BufferInvalid: the text may name anything, and a descriptor may be anything.

        `final`: they must not change any more, also not by their sender.
        """
        if not isinstance(part, list) or len(part) != 3 or not _WHOLE.issuperset(map(type, part)) or min(part) < 0:
            raise BufferInvalid("a part of a buffer is [file, offset, length]")
        number, offset, size = part
        whole = self._maps.get(number)
        if whole is None:
            whole = self._maps[number] = self._whole(number)
        if final and not self._is_final(number):
            raise BufferInvalid("a part that must not change is in a buffer that its sender can still change")
        if offset + size > len(whole):
            raise BufferInvalid(f"bytes {offset} to {offset + size} are outside of a buffer of {len(whole)}")
        part = whole[offset : offset + size]
        if number == COPIED and self.inline and size * 2 < len(self.inline):
            return part.toreadonly()  # so that it is copied: an array that is kept would keep all the other parts
        return part

    def _is_final(self, number: int) -> bool:
        if number == COPIED and self.inline:
            return True
        descriptor = self.descriptors[-1 if number == COPIED else number]
        return bool(fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE)

    def _whole(self, number: int) -> memoryview:
        if number == COPIED:
            if self.inline:
                return memoryview(self.inline)
            number = len(self.descriptors) - 1
        if not 0 <= number < len(self.descriptors):
            raise BufferInvalid("a buffer did not arrive")
        return _checked_map(self.descriptors[number])

    def place(self, number: int, offset: int, size: int) -> int | memoryview:
        """Where a part is: the descriptor of its file, or its bytes. Raises BufferInvalid."""
        if number == COPIED and self.inline:
            return self.view([number, offset, size])
        at = len(self.descriptors) - 1 if number == COPIED else number
        if not 0 <= at < len(self.descriptors) or offset < 0 or size < 0:
            raise BufferInvalid("a buffer did not arrive")
        if offset + size > checked_size(self.descriptors[at]):
            raise BufferInvalid(f"bytes {offset} to {offset + size} are outside of a buffer")
        return self.descriptors[at]

    def sizes(self) -> int:
        """The bytes of all files. Raises BufferInvalid for a descriptor that is no sealed memory file."""
        return sum(map(checked_size, self.descriptors))

    def close(self) -> None:
        descriptors, self.descriptors = self.descriptors, []
        self._maps.clear()
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                close(descriptor, self._inodes[descriptor])

    def __del__(self) -> None:
        self.close()


def checked_size(descriptor: int) -> int:
    """The bytes of a sealed memory file. Raises BufferInvalid for anything else."""
    try:
        given = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:  # a file, a pipe, a socket
        raise BufferInvalid("a buffer is no memory file") from None
    if given & seals() != seals() and given & KEPT_SEALS != KEPT_SEALS:
        raise BufferInvalid("a buffer is not sealed: its sender could still change it")
    size = os.fstat(descriptor).st_size
    if not size <= LARGEST:
        raise BufferInvalid(f"a buffer has {size:,} bytes; {LARGEST:,} are allowed")
    return size


def _checked_map(descriptor: int) -> memoryview:
    size = checked_size(descriptor)
    return memoryview(_map(descriptor, size) if size else b"")


_live: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()  # maps that hold a descriptor each


def _map(descriptor: int, size: int) -> Any:
    """A private map: its memory is that of the file until this process writes to it."""
    if sys.version_info >= (3, 13):
        return mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY, trackfd=False)
    # Before Python 3.13 a map holds a descriptor of its own. A process that keeps many arrays would run out of them.
    if len(_live) >= _most_maps():
        copied = bytearray(size)
        view, at = memoryview(copied), 0
        while at < size:
            at += os.preadv(descriptor, [view[at : at + WRITE_BYTES]], at)
        return copied
    made = mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY)
    _live.add(made)
    return made


def _most_maps() -> int:
    """A quarter of the descriptors that this process may have. Not by `resource`: see `Containment.restore`."""
    soft = os.sysconf("SC_OPEN_MAX")
    return (soft if soft > 0 else 2**20) // 4


def rights(descriptors: Sequence[int]) -> list[tuple[int, int, array.array[int]]]:
    """The ancillary data that passes descriptors."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []


def received(ancillary: Iterable[tuple[int, int, bytes]]) -> Incoming:
    """The descriptors of ancillary data that arrived."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return Incoming(found)
