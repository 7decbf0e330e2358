"""Descriptors of ours, which other code of the process may close so that their numbers name foreign files.

A library that closes "all descriptors", or one number twice, closes sockets of the client or the worker. The next file
that is opened gets the number. These classes compare what a number names with what it named at first. A call then ends
with EBADF, the foreign file is neither read, written nor closed, and its number is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import math
import os
import select
import selectors
import socket
import sys
import threading
import time
from collections.abc import Sequence
from itertools import count
from typing import Any

ON_LINUX = sys.platform.startswith("linux")
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
SO_COOKIE, COOKIE_BYTES = 57, 8  # Linux: a number that no other socket of the machine has; `socket` has no name for it
FIRST_MARK, MARKS, NO_MARK = 36, 28, -1  # numbers of real-time signals; none is sent for an epoll without O_ASYNC
_marks = count()
# Of the parent class, for what each call uses: `super()` takes as long as the check.
_option = socket.socket.getsockopt
_send, _sendto = socket.socket.send, socket.socket.sendto
_recv, _recv_into, _recvmsg_into = socket.socket.recv, socket.socket.recv_into, socket.socket.recvmsg_into
_kept: list[object] = []  # objects whose number is a foreign file's: their end would close it


class DescriptorGone(OSError):
    """Other code has closed a descriptor of ours."""


def identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def is_same(descriptor: int, known: tuple[int, int]) -> bool:
    """Whether a number still names the file that had this identity."""
    try:
        return identity(descriptor) == known
    except OSError as error:
        if error.errno is None:  # a TimeoutError of a signal handler, which came between
            raise
        return False


def of_transport(transport: Any) -> tuple[int, int]:
    """The identity of a connection's socket; (0, 0), which no file has, for a transport without one."""
    ask = getattr(transport, "get_extra_info", None)
    found = ask("socket") if ask else None
    return (0, 0) if found is None else identity(found.fileno())


def gone() -> DescriptorGone:
    return DescriptorGone(errno.EBADF, "the descriptor was closed by other code of this process")


def cookie(made: socket.socket) -> bytes | None:
    """What is unique to a socket and takes half the time of its identity; None: this system does not have it."""
    if not ON_LINUX:
        return None
    try:
        return made.getsockopt(socket.SOL_SOCKET, SO_COOKIE, COOKIE_BYTES)
    except OSError as error:
        if error.errno is None:  # a TimeoutError of a signal handler
            raise
        return None


class OwnSocket(socket.socket):
    """A socket that does not touch a file which took its number."""

    __slots__ = ("_cookie", "_known")

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        super().__init__(family, type, proto, fileno)
        self._known = identity(super().fileno())
        self._cookie = cookie(self)

    def check(self) -> None:
        """Raise OSError if the number names another file, or none."""
        try:
            if self._cookie is not None and _option(self, socket.SOL_SOCKET, SO_COOKIE, COOKIE_BYTES) == self._cookie:
                return
        except OSError as error:  # no socket; else a TimeoutError of a signal handler
            if error.errno is None:
                raise
        number = super().fileno()
        # -1 before or after: we have closed it, perhaps in another thread, and the operation raises it.
        if number >= 0 and not is_same(number, self._known) and super().fileno() == number:
            raise gone()

    def send(self, *args: Any) -> int:
        self.check()
        return _send(self, *args)

    def sendto(self, *args: Any) -> int:
        self.check()
        return _sendto(self, *args)

    def sendmsg(self, *args: Any) -> int:
        self.check()
        return super().sendmsg(*args)

    def recv(self, *args: Any) -> bytes:
        self.check()
        return _recv(self, *args)

    def recv_into(self, *args: Any) -> int:
        self.check()
        return _recv_into(self, *args)

    def recvmsg(self, *args: Any) -> Any:
        self.check()
        return super().recvmsg(*args)

    def recvmsg_into(self, *args: Any) -> Any:
        self.check()
        return _recvmsg_into(self, *args)

    def connect(self, address: Any) -> None:
        self.check()
        super().connect(address)

    def accept(self) -> Any:
        self.check()
        made, address = super().accept()
        return OwnSocket(fileno=made.detach()), address

    def shutdown(self, how: int) -> None:
        self.check()
        super().shutdown(how)

    def close(self) -> None:
        if super().fileno() >= 0 and not is_same(super().fileno(), self._known):
            self.detach()
        super().close()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):  # a constructor that failed, the end of the interpreter
            self.close()


def own(made: socket.socket) -> OwnSocket:
    """The same socket, guarded, with its time-out."""
    timeout = made.gettimeout()
    guarded = OwnSocket(fileno=made.detach())
    guarded.settimeout(timeout)
    return guarded


class OwnSelector(selectors.DefaultSelector):
    """A selector that does not touch an epoll which took its number, such as that of another event loop."""

    _selector: Any

    def __init__(self, longest: float = math.inf, longest_of_main: float = math.inf) -> None:
        """`longest`: seconds of one wait; `longest_of_main`: of one of the main thread.

        A signal that comes between Python's last look for signals and the system call does not interrupt that call. Its
        handler runs when the call returns. A descriptor that other code has closed sends no event: it is found then.
        """
        super().__init__()
        self._longest, self._longest_of_main = longest, longest_of_main
        self._main = threading.main_thread().ident
        self._known: dict[int, tuple[int, int]] = {}  # by registered descriptor
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._lost = False
        if ON_LINUX:  # all epolls have one inode, so that fstat cannot tell them apart
            self._number, self._mark = self.fileno(), FIRST_MARK + next(_marks) % MARKS
            fcntl.fcntl(self._number, fcntl.F_SETSIG, self._mark)

    def is_ours(self) -> bool:
        """False also after `close`."""
        if not self._lost and self._is_foreign():
            # The object of the lost number must not end. An empty one takes its place for what is still unregistered.
            _kept.append(self._selector)
            self._selector = type(self._selector)()
            self._lost, self._mark = True, NO_MARK
        return not self._lost and self._selector is not None and not getattr(self._selector, "closed", False)

    def _is_foreign(self) -> bool:
        try:
            if ON_LINUX:
                return bool(fcntl.fcntl(self.fileno(), fcntl.F_GETSIG) != self._mark)
            os.fstat(self.fileno())
        except OSError as error:  # closed, and the number is free
            if error.errno is None:
                raise
            return True
        except ValueError:  # by `close`
            return False
        return False

    def check(self) -> None:
        """Raise OSError if the epoll, or a descriptor that it watches, was closed: its events come no more."""
        # Another thread may register, or unregister and close, while this one looks: what counts is what stays known.
        lost = ((number, mark) for number, mark in self._known.copy().items() if not is_same(number, mark))
        if not self.is_ours() or any(self._known.get(number) == mark for number, mark in lost):
            raise gone()

    def registered(self) -> list[int]:
        """The registered descriptors that are not foreign files."""
        known = self._known.copy()  # in one step: another thread may register meanwhile
        return [number for number, mark in known.items() if is_same(number, mark)]

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if not self.is_ours():
            raise gone()
        key = super().register(fileobj, events, data)
        self._known[key.fd], self._keys[key.fd] = identity(key.fd), key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        self.is_ours()
        key = super().unregister(fileobj)
        self._known.pop(key.fd, None)
        self._keys.pop(key.fd, None)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if not self.is_ours():
            raise gone()
        key = super().modify(fileobj, events, data)
        self._keys[key.fd] = key
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events, at most for the longest time. It is one function, because each call waits here."""
        longest = self._longest_of_main if threading.get_ident() == self._main else self._longest
        is_bounded = timeout is None or timeout > longest
        wait = longest if timeout is None or is_bounded else timeout
        try:
            is_ours = fcntl.fcntl(self._number, fcntl.F_GETSIG) == self._mark if ON_LINUX else self.is_ours()
        except OSError as error:  # closed, and the number is free
            if error.errno is None:
                raise
            is_ours = False
        if not is_ours and not self.is_ours():
            raise gone()
        if ON_LINUX:  # as the standard library does it, without two more functions
            keys, events = self._keys, []
            if wait == math.inf or wait <= 0:
                wait = -1 if wait > 0 else 0
            for number, event in self._selector.poll(wait, len(keys) or 1):  # rounds up to whole milliseconds
                if (key := keys.get(number)) is not None:
                    ready = (READ if event & ~select.EPOLLOUT else 0) | (WRITE if event & ~select.EPOLLIN else 0)
                    events.append((key, ready & key.events))
        else:
            events = super().select(None if wait == math.inf else wait)
        if is_bounded and not events:
            self.check()
        return events

    def close(self) -> None:
        self.is_ours()
        super().close()


class GuardedLoop(asyncio.SelectorEventLoop):
    """An event loop whose own descriptors, and those of the connections that it makes or accepts, are guarded."""

    _csock: socket.socket | None
    time = staticmethod(time.monotonic)  # as asyncio's, without a function around it

    def __init__(self, selector: OwnSelector | None = None) -> None:
        super().__init__(selector or OwnSelector())
        for name in ("_ssock", "_csock"):  # its wake-up pipe
            if isinstance(made := getattr(self, name, None), socket.socket):
                setattr(self, name, own(made))

    def _write_to_self(self) -> None:
        """As asyncio's, which also hides that the pipe is gone, and a TimeoutError of a signal handler.

        The wake-up would be lost.
        """
        if self._csock is not None:
            try:
                self._csock.send(b"\0")
            except OSError as error:  # it is full, so the loop wakes up
                if error.errno is None or isinstance(error, DescriptorGone):
                    raise

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        if host is None or options.get("sock") is not None:
            return await super().create_connection(protocol_factory, host, port, **options)
        if options.get("ssl") and options.get("server_hostname") is None:
            options["server_hostname"] = host
        made = await self._connected(await self.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        try:
            return await super().create_connection(protocol_factory, **options | {"sock": made})
        except BaseException:
            made.close()
            raise

    async def _connected(self, addresses: Sequence[Any]) -> OwnSocket:
        """Connect to the first address that answers; raises the error of the last one."""
        failure: OSError | None = None
        for family, kind, protocol, _, address in addresses:
            made = OwnSocket(family, kind, protocol)
            try:
                made.setblocking(False)
                await self.sock_connect(made, address)
                return made
            except OSError as error:
                made.close()
                if error.errno is None:
                    raise
                failure = error
            except BaseException:
                made.close()
                raise
        raise failure or OSError(errno.EHOSTUNREACH, "the name has no address")

    async def create_unix_connection(self, protocol_factory: Any, path: Any = None, **options: Any) -> Any:
        if path is None or options.get("sock") is not None:
            return await super().create_unix_connection(protocol_factory, path, **options)
        made = OwnSocket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            await self.sock_connect(made, os.fspath(path))
            return await super().create_unix_connection(protocol_factory, **options | {"sock": made})
        except BaseException:
            made.close()
            raise
