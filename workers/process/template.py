"""A template's program: load the adapter once, check that the process may be forked, fork workers on demand.

    broker ─ control socket ─▶ template ─ fork ─▶ intermediate ─ forks ─▶ workers
       ▲                          │ waits ─────────▶ exits               │ each waits until the broker is its parent,
       │                                                                 ▼ then sets its parent-death signal
       └──────────────── handshake socket: pid, then boot document ──────┘

The intermediate process exits immediately, so that the kernel hands its children to the nearest subreaper, the broker.
A forked worker is therefore the broker's own child, like a spawned one, and outlives its template. The broker sends the
boot document only when it has the worker's pid. If the broker does not answer, the worker reads the end of the
handshake socket and exits.

The template itself has one thread for its whole life and makes no event loop. If it holds something that workers must
not share (see `template_safety`), it refuses, and the broker spawns the workers instead.
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
DESCRIPTORS = 5  # that come with an order: listener, shared page, output, handshake, buffers
PARENT_CHECK = 0.0005  # seconds between two checks of the parent's pid


@dataclass(frozen=True, slots=True)
class ForkOrder:
    """An order to fork one worker, with the descriptors that the worker gets."""

    worker: str
    scratch: str
    listener: int
    shared_page: int
    output: int
    handshake: int
    buffers: int = 0  # 0: there is no such descriptor

    def close(self) -> None:
        """Close the descriptors in the template: the worker has its own copies."""
        for descriptor in (self.listener, self.shared_page, self.output, self.handshake, self.buffers):
            if descriptor:
                os.close(descriptor)


class TemplateProgram:
    def __init__(self, boot: TemplateBoot, control: int, refusal: Exception | None = None) -> None:
        self._boot = boot
        self._refusal = refusal  # why this process must not run the adapter
        self._control = socket.socket(fileno=control)
        self._preloaded: PreloadedAdapter | None = None

    # Loading

    def load(self) -> bool:
        """Load the adapter and send the broker the outcome. False: this process cannot fork workers."""
        began = time.perf_counter()
        try:
            refusal = self._load()
        except BaseException as error:  # an adapter may raise anything while it is imported, also SystemExit
            sys.stderr.write(failure.traceback_of(error))
            refusal = "load_failed", f"{failure.read_name(type(error))}: {failure.message_of(error)}"
        if refusal:
            reason, why = refusal
            self._send(refused=reason, why=why[: MESSAGE // 2])
            return False
        self._send(load_seconds=time.perf_counter() - began)
        return True

    def _load(self) -> tuple[str, str] | None:
        if self._refusal:
            raise self._refusal
        kind = commands.load_class(self._boot.adapter)
        if not (self._boot.always or commands.has_preload(kind)):
            return "no_preload", f"{kind.__name__} has no preload()"
        described = commands.find_commands(kind)
        commands.preload(kind, self._boot.args)
        import snakepit.workers.process.worker  # noqa: F401  every worker needs it, and a fork shares it

        close_database_connections()
        gc.collect()  # what is open only because it was not collected yet must not count as an obstacle
        if found := template_safety.obstacles(own=[self._control.fileno()]):
            return "unsafe", "; ".join(found)
        gc.freeze()  # a collection in a worker writes into the head of every object, which would copy the shared pages
        self._preloaded = PreloadedAdapter(kind, described)
        return None

    def _send(self, **facts: Any) -> None:
        self._control.send(json.dumps(facts).encode())

    # Forking

    def serve(self) -> ForkOrder | None:
        """Fork until the broker closes the control socket, then return None. In a new worker, return its order."""
        while order := self._receive():
            flush()
            try:
                intermediate = os.fork()
            except OSError as error:  # no memory, or no free pid: the broker reads the end of the handshake socket
                sys.stderr.write(f"the template could not fork: {error}\n")
                order.close()
                continue
            if not intermediate:
                return self._fork_workers(order)
            order.close()
            os.waitpid(intermediate, 0)
        return None

    def _receive(self, flags: int = 0) -> ForkOrder | None:
        """Return the next order; None if there is none, or if the broker has closed the socket."""
        descriptors = array("i")
        room = socket.CMSG_LEN(DESCRIPTORS * descriptors.itemsize)
        try:  # not with recv_fds, which ignores flags (CPython 3.11)
            message, ancillary, _, _ = self._control.recvmsg(MESSAGE, room, socket.MSG_CMSG_CLOEXEC | flags)
        except BlockingIOError:
            return None
        if not message:
            return None
        for _, _, content in ancillary:
            descriptors.frombytes(content)
        facts = json.loads(message)
        return ForkOrder(facts["worker"], facts["scratch"], *descriptors)

    def _fork_workers(self, order: ForkOrder | None) -> ForkOrder:
        """In the intermediate process: fork a worker for each waiting order, then exit. Returns in the workers only.

        A fork takes milliseconds for each hundred megabytes, so many workers share one intermediate process.
        """
        intermediate = os.getpid()
        try:
            while order:
                if not os.fork():
                    # A parent-death signal set before the intermediate process has exited would kill this one.
                    while os.getppid() == intermediate:
                        time.sleep(PARENT_CHECK)
                    return order
                order.close()
                order = self._receive(socket.MSG_DONTWAIT)
        except OSError as error:
            sys.stderr.write(f"the template could not fork: {error}\n")
        os._exit(0)

    # In the worker

    def become_worker(self, order: ForkOrder) -> tuple[Boot, PreloadedAdapter]:
        """Turn this process into a worker. Raises Orphaned or BootInvalid if the broker has ended meanwhile."""
        self._control.close()
        parent_death.end_with(self._boot.parent)
        os.setsid()
        process_title.rewrite(self._boot.template, order.worker)
        after_fork.reset(order.output, order.scratch)
        os.write(order.handshake, str(os.getpid()).encode())
        document = boot.read(order.handshake, Boot)
        assert self._preloaded is not None
        made = replace(document, listen_fd=order.listener, shared_page_fd=order.shared_page, buffer_fd=order.buffers)
        return made, self._preloaded


def flush() -> None:
    """Empty all output buffers: every worker would write what they hold once more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the broker's end of the pipe is closed, or the adapter closed it
            continue
    ctypes.CDLL(None).fflush(None)


def close_database_connections() -> None:
    """Close Django's connections; it opens them again when they are needed."""
    database: Any = sys.modules.get("django.db")
    configuration: Any = sys.modules.get("django.conf")
    if database is not None and configuration is not None and configuration.settings.configured:
        database.connections.close_all()
