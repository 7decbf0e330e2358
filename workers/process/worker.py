"""A worker's program, from its boot document to its exit code.

link up ▶ adapter loaded ▶ Hello ▶ calls ▶ drained ▶ teardown ▶ exit 0
               └─ fails: BootFailure ▶ exit 3      link lost ▶ teardown ▶ exit 4
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import time
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snakepit.workers.adapter import Adapter
from snakepit.workers.kept_files import files
from snakepit.workers.process import stacks, vitals
from snakepit.workers.process.boot import PROTOCOL, Boot
from snakepit.workers.process.shared_page import SharedPage
from snakepit.workers.report import BootFailureReport, HelloReport, VitalsReport
from snakepit.workers.runtime import failure
from snakepit.workers.runtime.execution import end_fork
from snakepit.workers.runtime.parallelism import measure
from snakepit.workers.runtime.runtime import CallRuntime
from snakepit.workers.schema import commands
from snakepit.workers.schema.commands import CommandSpec, PreloadedAdapter
from snakepit.workers.transport import LOOP_OWNER, is_on
from snakepit.workers.transport.direct_reply import DirectReplySender
from snakepit.workers.transport.server import WorkerService

if TYPE_CHECKING:  # their modules load only where a pool needs them: every import delays every start
    from snakepit.workers.process.sandbox import SandboxUnavailable
    from snakepit.workers.runtime.races import RaceChecker

DRAINED, UNLOADABLE, LINK_LOST, UNCONTAINED = 0, 3, 4, 6  # exit codes

UNASKED = 0  # the nonce of vitals that no probe asked for
LOST_SECONDS = 1.0  # for calls to end and for the teardown when the broker is gone
EXIT_NICE = 10  # gives a tenth of the CPU share of a process at nice 0, where others need the CPU


class WorkerProgram:
    def __init__(
        self,
        boot: Boot,
        watch: vitals.GilWatch,
        preloaded: PreloadedAdapter | None = None,
        refusal: SandboxUnavailable | None = None,
    ) -> None:
        os.set_inheritable(boot.listen_fd, False)  # processes that commands start must not hold the socket
        os.set_inheritable(boot.shared_page_fd, False)
        self._boot = boot
        self._watch = watch
        self._refusal = refusal  # why this process must not run the adapter
        self._forked = False  # True in a process that setup, a command or teardown forked
        self._gil_reported = False  # whether the broker has been sent that the GIL is on
        page = SharedPage(boot.shared_page_fd)
        stacks.answer_with(page.descriptor)  # before the adapter loads: its import may hang
        self._preloaded = preloaded  # by the template that forked this worker
        files.most_bytes = boot.kept_bytes
        self._link = WorkerService(boot.listen_fd, boot.max_payload, self.probe, boot.buffer_fd)
        self._direct_reply = DirectReplySender(boot.worker)
        idling = self._link.loop_owner if is_on(LOOP_OWNER) else None
        self._runtime = CallRuntime(
            self._link.outbox,
            page,
            slots=boot.slots,
            idling=idling,
            direct_reply=self._direct_reply,
            watched=(page.descriptor,),
        )

    def run(self) -> int:
        """Run on the main thread until the worker is drained or the link is lost; return the exit code."""
        self._link.start(self._runtime, self._on_lost)
        self._guard_forks()
        began = time.perf_counter()
        try:
            adapter, described = self._load()
            self._end_fork()
            checker = self._check_threads(adapter)
        except BaseException as error:  # an adapter may raise anything while it is imported, also SystemExit
            self._end_fork(error)
            self._link.outbox.put(boot_failure(error))
            sys.stderr.write(failure.traceback_of(error))
            self._link.finish()
            return UNLOADABLE
        bound = commands.bind(adapter, described)
        if checker:
            commands.after_each_call(bound, partial(checker.settle, adapter))
        self._link.outbox.put(self._hello(described, time.perf_counter() - began))
        if vitals.is_free_threaded():
            self._watch.on_found = self._report_gil
            self._report_gil()  # an import in another thread may have come in between
            commands.after_first_calls(bound, self._report_gil)
        self._runtime.run(bound)
        if self._runtime.uncontained:
            return self._end_uncontained()
        self._direct_reply.close()
        if checker:
            checker.stop()  # the slots have ended, so the teardown's writes race with nothing
        self._tear_down(adapter)
        self._link.finish()
        return LINK_LOST if self._link.lost else DRAINED

    def _guard_forks(self) -> None:
        os.register_at_fork(after_in_child=self._in_fork)

    def _end_uncontained(self) -> int:
        """A call changed the process irreversibly. Send the waiting reports; run no further call and no teardown."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"the worker ends {self._runtime.uncontained}\n")
        if not self._runtime.cut_off:
            self._link.finish()
        return UNCONTAINED

    def _in_fork(self) -> None:
        """In a process that user code forked. It shares the link with this worker, and must never write to it."""
        self._forked = True
        self._link.outbox.close()
        self._runtime.mark_fork()

    def _end_fork(self, error: BaseException | None = None) -> None:
        if self._forked:
            end_fork(error)

    def probe(self, nonce: int) -> VitalsReport:
        runtime = self._runtime
        return VitalsReport(nonce, runtime.served, runtime.load, self._watch.is_gil_enabled(), self._watch.culprit)

    def _report_gil(self) -> None:
        """Report once that the GIL is on. Called on any thread, after imports and after each command's first call."""
        if self._watch.is_gil_enabled() and not self._gil_reported:
            self._gil_reported = True
            self._link.outbox.put(self.probe(UNASKED))

    def _load(self) -> tuple[Adapter, Mapping[str, CommandSpec]]:
        if self._refusal:
            raise self._refusal
        boot = self._boot
        loaded = self._preloaded or self._preload()
        adapter = commands.make(loaded.kind, boot.args)
        self._complete(adapter.setup())
        return adapter, loaded.commands

    def _preload(self) -> PreloadedAdapter:
        kind = commands.load_class(self._boot.adapter)
        if self._boot.profile == "thread":
            commands.require_thread_safe(kind)
        described = commands.find_commands(kind)
        commands.preload(kind, self._boot.args)
        return PreloadedAdapter(kind, described)

    def _check_threads(self, adapter: Adapter) -> RaceChecker | None:
        if not self._boot.thread_checks:
            return None
        from snakepit.workers.runtime.races import RaceChecker

        checker = RaceChecker(self._link.outbox.put)
        checker.watch(adapter)
        return checker

    def _complete(self, returned: Any) -> None:
        if inspect.iscoroutine(returned):
            self._runtime.loop.run(returned)

    def _hello(self, described: Mapping[str, CommandSpec], seconds: float) -> HelloReport:
        slots = self._runtime.slots
        cores = vitals.cores()
        self._gil_reported = gil = self._watch.is_gil_enabled()
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
            "parallelism": self._parallelism(slots, cores, gil),
            "cores": cores,
            "sandbox": self._sandbox(),
        }
        return HelloReport(facts, tuple(command.facts() for command in described.values()))

    def _sandbox(self) -> str:
        if not self._boot.sandbox.is_active:
            return ""
        from snakepit.workers.process import sandbox

        return sandbox.summary(self._boot.sandbox)

    def _parallelism(self, slots: int, cores: int, gil: bool) -> float:
        if self._boot.profile != "thread":
            return 0.0
        if self._boot.parallelism and not gil:  # without a GIL a measurement takes a quarter of the start's CPU time
            return self._boot.parallelism
        return measure(slots, cores=cores, gil_enabled=gil)

    def _tear_down(self, adapter: Adapter) -> None:
        """Write errors to stderr only: the calls are done, and the worker ends either way."""
        try:
            self._complete(adapter.teardown())
            self._end_fork()
            self._runtime.loop.close()
        except BaseException as error:
            self._end_fork(error)
            traceback.print_exc()

    def _on_lost(self) -> None:
        """On the I/O thread. It sets the end of the process, because the main thread may be stuck in a command."""
        self._runtime.abandon()
        if not self._link.loop.is_closed():
            self._link.loop.call_later(LOST_SECONDS, os._exit, LINK_LOST)


def boot_failure(error: BaseException) -> BootFailureReport:
    return BootFailureReport(failure.type_of(error), failure.message_of(error), failure.traceback_of(error))


def lower_priority() -> None:
    """Lower the CPU priority of a process that is about to exit. Without permission the priority does not change.

    The kernel needs a tenth of a second to free some hundred megabytes, and counts it as the exiting process's time. At
    normal priority this delayed calls of busy workers. It happens only before the exit, because an unprivileged process
    cannot raise its priority again. The teardown has run by now, at the worker's own priority.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError):
        for thread in Path("/proc/self/task").iterdir():  # each thread has its own; the last one frees the memory
            with contextlib.suppress(ProcessLookupError):
                number = int(thread.name)
                os.setpriority(os.PRIO_PROCESS, number, max(EXIT_NICE, os.getpriority(os.PRIO_PROCESS, number)))
    # Where the kernel groups processes by session, groups share the CPU; a worker has its session to itself.
    with contextlib.suppress(OSError):
        if os.getsid(0) == os.getpid():
            Path("/proc/self/autogroup").write_text(str(EXIT_NICE))
