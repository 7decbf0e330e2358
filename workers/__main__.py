"""`python -m snakepit.workers`: a worker, a template of workers, or the description of an adapter.

The order at start matters. The parent-death signal comes first, so that nothing after it can leave an orphan. The
sandbox comes before any thread, and the watch for imports that switch the GIL on before all further imports. The link
comes before the adapter, so that the broker's probes are answered while the adapter loads.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import io
import json
import os
import sys
from typing import TYPE_CHECKING

from snakepit.workers.process import boot, inherited, parent_death, vitals
from snakepit.workers.process.boot import Boot, TemplateBoot
from snakepit.workers.process.heap import keep_freed_memory
from snakepit.workers.runtime import failure

if TYPE_CHECKING:
    from snakepit.workers.process.sandbox import SandboxUnavailable
    from snakepit.workers.schema.commands import PreloadedAdapter

USAGE, UNLOADABLE, LINK_LOST = 2, 3, 4  # exit codes
PR_SET_NO_NEW_PRIVS = 38


def parser() -> argparse.ArgumentParser:
    about = "A worker process of Snakepit for Django."
    parser = argparse.ArgumentParser(prog="python -m snakepit.workers", description=about)
    parser.add_argument("--describe", metavar="package.module.Class", help="print an adapter's commands and exit")
    parser.add_argument("--json", action="store_true", help="with --describe: print JSON")
    group = parser.add_argument_group("used by the broker")
    group.add_argument("--pool", default="", help="name of the pool, for process lists")
    group.add_argument("--worker", default="", help="id of the worker, for process lists")
    group.add_argument("--boot", type=int, metavar="FD", help="file descriptor of the boot document")
    group.add_argument("--template", type=int, metavar="FD", help="run a template; file descriptor of its orders")
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    if options.describe:
        return describe(options.describe, as_json=options.json)
    if options.boot is None:
        parser().error("the broker starts workers, with --boot; to look at an adapter use --describe")
    keep_freed_memory()
    try:
        if options.template is None:
            return run_worker(options.boot)
        return run_template(options.boot, options.template)
    except boot.BootInvalid as error:
        sys.stderr.write(f"{error}\n")
        return USAGE
    except parent_death.Orphaned as error:
        sys.stderr.write(f"{error}\n")
        return parent_death.ORPHANED


def run_worker(descriptor: int) -> int:
    """Run a worker from its boot document to its exit code."""
    document = start(descriptor, Boot)
    refusal = enter_sandbox(document)
    return serve(document, watch_imports(), refusal=refusal)


def run_template(descriptor: int, control: int) -> int:
    """Run a template, and in each process that it forks, a worker."""
    document = start(descriptor, TemplateBoot)
    refusal = enter_sandbox(document)
    watch = watch_imports()
    from snakepit.workers.process.template import TemplateProgram

    template = TemplateProgram(document, control, refusal)
    if not template.load():
        exit_now(UNLOADABLE)
    order = template.serve()
    if order is None:
        return 0
    worker, preloaded = template.become_worker(order)
    return serve(worker, watch, preloaded)


def start(descriptor: int, kind: type[boot.Document]) -> boot.Document:
    """Tie this process's life to the broker's, reset its signals, and read the boot document."""
    parent_death.set_death_signal()
    inherited.reset_signals()  # also for what a command starts: an ignored signal passes through exec()
    faulthandler.enable()  # a segfault in the adapter's C code then prints its Python stack on stderr
    document = boot.read(descriptor, kind)
    parent_death.require_parent(document.parent)
    if document.no_new_privs:
        forbid_new_privileges()
    return document


def forbid_new_privileges() -> None:
    """Have the kernel ignore set-user-id bits of programs that this process starts. This is permanent."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS) failed")


def enter_sandbox(document: Boot | TemplateBoot) -> SandboxUnavailable | None:
    """Apply the pool's sandbox before any thread starts. Return the reason if this machine cannot.

    The worker sends the reason over its link, so that the pool fails with it, and does not load the adapter.
    """
    if not document.sandbox.is_active:
        return None
    from snakepit.workers.process import sandbox

    try:
        sandbox.enter(document.sandbox)
    except sandbox.SandboxUnavailable as error:
        return error
    return None


def watch_imports() -> vitals.GilWatch:
    watch = vitals.GilWatch()
    watch.install()
    accept_any_output()
    return watch


def serve(
    document: Boot,
    watch: vitals.GilWatch,
    preloaded: PreloadedAdapter | None = None,
    refusal: SandboxUnavailable | None = None,
) -> int:
    # The imports leave no garbage. Without a GIL each collection walks all objects: a fifth of the start's CPU time.
    gc.disable()
    from snakepit.workers.process.worker import WorkerProgram, lower_priority  # loads gRPC: not for --help

    gc.enable()
    code = WorkerProgram(document, watch, preloaded, refusal).run()
    lower_priority()
    if code:
        exit_now(code)
    return code


def accept_any_output() -> None:
    """Escape what the host's encoding cannot print: a print of unusual text must not fail a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def exit_now(code: int) -> None:
    """Exit without exit handlers: threads and handlers that a broken adapter left behind may never end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the broker's end of the pipe is closed
            continue
    os._exit(code)


def describe(path: str, *, as_json: bool) -> int:
    from snakepit.workers.schema.describe import as_text
    from snakepit.workers.schema.describe import describe as describe_adapter

    try:
        described = describe_adapter(path)
    except BaseException as error:  # importing an adapter runs its module, which may raise anything
        sys.stderr.write(f"{path} does not load: {type(error).__name__}: {failure.message_of(error)}\n")
        return UNLOADABLE
    sys.stdout.write((json.dumps(described, indent=2) if as_json else as_text(described)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
