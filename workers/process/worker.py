"""A worker's life, from its boot document to its exit code.

link up ▶ adapter loaded ▶ Hello ▶ calls ▶ drained ▶ teardown ▶ exit 0
               └─ fails: BootFailure ▶ exit 3      link lost ▶ teardown ▶ exit 4
"""

from __future__ import annotations

import inspect
import os
import sys
import time
import traceback
from collections.abc import Mapping
from functools import partial
from typing import Any

from snakepit.workers.adapter import Adapter
from snakepit.workers.process import stacks, vitals
from snakepit.workers.process.boot import PROTOCOL, Boot
from snakepit.workers.process.shared_page import SharedPage
from snakepit.workers.report import BootFailure, Hello, Vitals, clean
from snakepit.workers.runtime import failure
from snakepit.workers.runtime.parallelism import measure
from snakepit.workers.runtime.races import RaceChecker
from snakepit.workers.runtime.runtime import Runtime
from snakepit.workers.schema import commands
from snakepit.workers.schema.commands import Command, Preloaded
from snakepit.workers.schema.value import type_name
from snakepit.workers.transport import LOOP_OWNER, is_on
from snakepit.workers.transport.direct_reply import DirectReplySender
from snakepit.workers.transport.server import Link

DRAINED, UNLOADABLE, LINK_LOST = 0, 3, 4

UNASKED = 0  # the nonce of vitals that no probe asked for
LOST_SECONDS = 1.0  # for calls to end and the adapter to be torn down when the broker is gone


class Worker:
    def __init__(self, boot: Boot, watch: vitals.GilWatch, preloaded: Preloaded | None = None) -> None:
        os.set_inheritable(boot.listen_fd, False)  # children that commands start are not to hold the socket
        os.set_inheritable(boot.shared_page_fd, False)
        self._boot = boot
        self._watch = watch
        self._gil_told = False  # whether the broker knows that the GIL is on
        box = SharedPage(boot.shared_page_fd)
        stacks.answer_with(box.descriptor)  # before the adapter loads: its import may be what hangs
        self._preloaded = preloaded  # by the template that this worker was forked from
        self._link = Link(boot.listen_fd, boot.max_payload, self.probe)
        self._direct_reply = DirectReplySender(boot.worker)
        idling = self._link.loop_owner if is_on(LOOP_OWNER) else None
        self._runtime = Runtime(
            self._link.outbox, box, slots=boot.slots, idling=idling, direct_reply=self._direct_reply
        )

    def live(self) -> int:
        """Runs on the main thread; returns the exit code."""
        self._link.start(self._runtime, self._on_lost)
        began = time.perf_counter()
        try:
            adapter, described = self._load()
            checker = self._check_threads(adapter)
        except BaseException as error:  # an adapter may raise anything, also SystemExit, while it is imported
            self._link.outbox.put(boot_failure(error))
            sys.stderr.write(failure.traceback_of(error))
            self._link.finish()
            return UNLOADABLE
        bound = commands.bind(adapter, described)
        if checker:
            commands.look_after_calls(bound, partial(checker.settle, adapter))
        self._link.outbox.put(self._hello(described, time.perf_counter() - began))
        if vitals.is_free_threaded():
            self._watch.told = self._look_at_gil
            self._look_at_gil()  # an import of another thread may have come between
            commands.look_after_first_calls(bound, self._look_at_gil)
        self._runtime.run(bound)
        self._direct_reply.close()
        if checker:
            checker.stop()  # the threads have ended; what the teardown writes meets nobody
        self._tear_down(adapter)
        self._link.finish()
        return LINK_LOST if self._link.lost else DRAINED

    def probe(self, nonce: int) -> Vitals:
        runtime = self._runtime
        return Vitals(nonce, runtime.served, runtime.load, self._watch.is_gil_enabled(), self._watch.culprit)

    def _look_at_gil(self) -> None:
        """On any thread, after an import that switched the GIL on and after each command's first call: tell news."""
        if self._watch.is_gil_enabled() and not self._gil_told:
            self._gil_told = True
            self._link.outbox.put(self.probe(UNASKED))

    def _load(self) -> tuple[Adapter, Mapping[str, Command]]:
        boot = self._boot
        loaded = self._preloaded or self._preload()
        adapter = commands.make(loaded.kind, boot.args)
        self._complete(adapter.setup())
        return adapter, loaded.commands

    def _preload(self) -> Preloaded:
        kind = commands.load_class(self._boot.adapter)
        if self._boot.profile == "thread":
            commands.require_thread_safe(kind)
        described = commands.find_commands(kind)
        commands.preload(kind, self._boot.args)
        return Preloaded(kind, described)

    def _check_threads(self, adapter: Adapter) -> RaceChecker | None:
        if not self._boot.thread_checks:
            return None
        checker = RaceChecker(self._link.outbox.put)
        checker.watch(adapter)
        return checker

    def _complete(self, returned: Any) -> None:
        if inspect.iscoroutine(returned):
            self._runtime.loop.run(returned)

    def _hello(self, described: Mapping[str, Command], seconds: float) -> Hello:
        slots = self._runtime.slots
        cores = vitals.cores()
        self._gil_told = gil = self._watch.is_gil_enabled()
        interpreter = vitals.interpreter()
        facts = {
            "protocol": PROTOCOL,
            "pid": os.getpid(),
            "python": interpreter.python,
            "implementation": interpreter.implementation,
            "executable": interpreter.executable,
            "free_threaded": interpreter.free_threaded,
            "gil_enabled": gil,
            "gil_culprit": self._watch.culprit,
            "load_seconds": seconds,
            "slots": slots,
            "blas_threads": vitals.blas_threads(),
            "parallelism": measure(slots, cores=cores, gil_enabled=gil) if self._boot.profile == "thread" else 0.0,
            "cores": cores,
        }
        return Hello(facts, tuple(command.facts() for command in described.values()))

    def _tear_down(self, adapter: Adapter) -> None:
        """Errors go to stderr: the work is done, and the worker leaves either way."""
        try:
            self._complete(adapter.teardown())
            self._runtime.loop.close()
        except BaseException:
            traceback.print_exc()

    def _on_lost(self) -> None:
        """On the I/O thread. The main thread may be stuck in a command, so the end is set here."""
        self._runtime.abandon()
        if not self._link.loop.is_closed():
            self._link.loop.call_later(LOST_SECONDS, os._exit, LINK_LOST)


def boot_failure(error: BaseException) -> BootFailure:
    kind = clean(type_name(type(error)), 256)
    return BootFailure(kind, failure.message_of(error), failure.traceback_of(error))
