"""A template's life: load the adapter once, prove that the process may be forked, fork a worker whenever asked to.

    broker ─ control socket ─▶ template ─ fork ─▶ middle ─ forks ─▶ workers
       ▲                          │ waits ────────▶ ends              │ waits until the broker is its parent,
       │                                                              ▼ arms its lifeline
       └──────────────────────── cord: pid, then boot document ───────┘

The one in the middle ends at once, so that its children are handed to the nearest subreaper above, the broker: a forked
worker is the broker's own child like a spawned one, and the template's death does not touch it. The broker lets
go of the boot document only when it knows the pid. A worker whose broker does not answer reads the end of the cord
instead, and leaves.

The template itself is single-threaded for its whole life and makes no event loop; what it must not share (see
`safety`) makes it refuse, and its broker spawns workers plainly.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import socket
import sys
import time
from array import array
from dataclasses import dataclass, replace
from typing import Any

from snakepit.workers.process import after_fork, boot, parent_death, process_title, template_safety
from snakepit.workers.process.boot import Boot, TemplateBoot
from snakepit.workers.runtime import failure
from snakepit.workers.schema import commands
from snakepit.workers.schema.commands import PreloadedAdapter

MESSAGE = 4096  # bytes: an order is an id and a path
BELONGINGS = 4  # descriptors that come with an order: listener, black box, output, cord
TURN = 0.0005  # seconds between two looks at who the parent is


@dataclass(frozen=True, slots=True)
class ForkOrder:
    """What a new worker was given; it is the only thing that `TemplateProgram.serve` lets out of a template alive."""

    worker: str
    scratch: str
    listener: int
    shared_page: int
    output: int
    cord: int

    def close(self) -> None:
        """They are the worker's, and the worker has them."""
        for descriptor in (self.listener, self.shared_page, self.output, self.cord):
            os.close(descriptor)


class TemplateProgram:
    def __init__(self, boot: TemplateBoot, control: int) -> None:
        self._boot = boot
        self._control = socket.socket(fileno=control)
        self._preloaded: PreloadedAdapter | None = None

    # Loading

    def load(self) -> bool:
        """Tell the broker how it went. False: nothing can be forked from here."""
        began = time.perf_counter()
        try:
            refusal = self._load()
        except BaseException as error:  # an adapter may raise anything while it is imported, also SystemExit
            sys.stderr.write(failure.traceback_of(error))
            refusal = "load_failed", f"{type(error).__name__}: {failure.message_of(error)}"
        if refusal:
            reason, why = refusal
            self._tell(refused=reason, why=why[: MESSAGE // 2])
            return False
        self._tell(load_seconds=time.perf_counter() - began)
        return True

    def _load(self) -> tuple[str, str] | None:
        kind = commands.load_class(self._boot.adapter)
        if not (self._boot.always or commands.has_preload(kind)):
            return "no_preload", f"{kind.__name__} has no preload()"
        described = commands.find_commands(kind)
        commands.preload(kind, self._boot.args)
        import snakepit.workers.process.worker  # noqa: F401  every worker needs it, and a fork gets it for nothing

        close_database_connections()
        gc.collect()  # what is open only because nobody collected it is no obstacle
        if found := template_safety.obstacles(own=[self._control.fileno()]):
            return "unsafe", "; ".join(found)
        gc.freeze()  # a collection in a worker would write into every object's head, and so copy what is shared
        self._preloaded = PreloadedAdapter(kind, described)
        return None

    def _tell(self, **facts: Any) -> None:
        self._control.send(json.dumps(facts).encode())

    # Forking

    def serve(self) -> ForkOrder | None:
        """Fork until the broker closes the control socket: None. In a new worker: what it was born with."""
        while birth := self._receive():
            flush()
            try:
                middle = os.fork()
            except OSError as error:  # no memory, no process numbers: the broker hears it by the end of the cord
                sys.stderr.write(f"the template could not fork: {error}\n")
                birth.close()
                continue
            if not middle:
                return self._multiply(birth)
            birth.close()
            os.waitpid(middle, 0)
        return None

    def _receive(self, flags: int = 0) -> ForkOrder | None:
        """The next order; None: there is none, or the broker has hung up."""
        descriptors = array("i")
        room = socket.CMSG_LEN(BELONGINGS * descriptors.itemsize)
        try:  # not by recv_fds, which passes no flags on (CPython 3.11)
            message, ancillary, _, _ = self._control.recvmsg(MESSAGE, room, socket.MSG_CMSG_CLOEXEC | flags)
        except BlockingIOError:
            return None
        if not message:
            return None
        for _, _, content in ancillary:
            descriptors.frombytes(content)
        order = json.loads(message)
        return ForkOrder(order["worker"], order["scratch"], *descriptors)

    def _multiply(self, birth: ForkOrder | None) -> ForkOrder:
        """The one in the middle: a worker for each order that waits, then its end. Returns in the workers alone.

        A fork costs milliseconds for each hundred megabytes, so many workers have one middle.
        """
        middle = os.getpid()
        try:
            while birth:
                if not os.fork():
                    # Armed before the middle one has ended, the lifeline would end this process with it.
                    while os.getppid() == middle:
                        time.sleep(TURN)
                    return birth
                birth.close()
                birth = self._receive(socket.MSG_DONTWAIT)
        except OSError as error:
            sys.stderr.write(f"the template could not fork: {error}\n")
        os._exit(0)

    # In the worker

    def settle(self, birth: ForkOrder) -> tuple[Boot, PreloadedAdapter]:
        """Become a worker of its own: raises Orphaned or BootInvalid if the broker has gone meanwhile."""
        self._control.close()
        parent_death.arm(self._boot.parent)
        os.setsid()
        process_title.write(self._boot.template, birth.worker)
        after_fork.renew(birth.output, birth.scratch)
        os.write(birth.cord, str(os.getpid()).encode())
        document = boot.read(birth.cord, Boot)
        assert self._preloaded is not None
        return replace(document, listen_fd=birth.listener, shared_page_fd=birth.shared_page), self._preloaded


def flush() -> None:
    """What waits in a buffer would be written by every worker once more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the broker's end of the pipe is gone, or the adapter closed it
            continue
    ctypes.CDLL(None).fflush(None)


def close_database_connections() -> None:
    """Django's own; they are opened again when somebody needs them."""
    database: Any = sys.modules.get("django.db")
    configuration: Any = sys.modules.get("django.conf")
    if database is not None and configuration is not None and configuration.settings.configured:
        database.connections.close_all()
