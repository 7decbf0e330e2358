"""`python -m snakepit.workers`: a worker, a template of workers, or a description of an adapter.

The order of start matters: first the lifeline, so that nothing that follows can leave an orphan; then the watch for
imports that switch the GIL on; then the link, so that the broker's probes are answered while the adapter loads.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import json
import os
import sys
from typing import TYPE_CHECKING

from snakepit.workers.process import boot, exit_priority, inherited, parent_death, vitals
from snakepit.workers.process.boot import Boot, TemplateBoot
from snakepit.workers.runtime import failure

if TYPE_CHECKING:
    from snakepit.workers.schema.commands import PreloadedAdapter

USAGE, UNLOADABLE, LINK_LOST = 2, 3, 4


def parser() -> argparse.ArgumentParser:
    about = "A warm worker of Snakepit for Django."
    parser = argparse.ArgumentParser(prog="python -m snakepit.workers", description=about)
    parser.add_argument("--describe", metavar="package.module.Class", help="print an adapter's commands and leave")
    parser.add_argument("--json", action="store_true", help="with --describe: as JSON")
    group = parser.add_argument_group("started by a broker")
    group.add_argument("--pool", default="", help="name of the pool, for process lists")
    group.add_argument("--worker", default="", help="id of the worker, for process lists")
    group.add_argument("--boot", type=int, metavar="FD", help="descriptor that the boot document is read from")
    group.add_argument("--template", type=int, metavar="FD", help="be a template: the socket that orders come by")
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    if options.describe:
        return describe(options.describe, as_json=options.json)
    if options.boot is None:
        parser().error("a worker is started by its broker, with --boot; to look at an adapter use --describe")
    try:
        if options.template is None:
            return work(options.boot)
        return stand(options.boot, options.template)
    except boot.BootInvalid as why:
        sys.stderr.write(f"{why}\n")
        return USAGE
    except parent_death.Orphaned as why:
        sys.stderr.write(f"{why}\n")
        return parent_death.ORPHANED


def work(descriptor: int) -> int:
    """A worker, from its boot document on."""
    document = begin(descriptor, Boot)
    return live(document, watch_imports())


def stand(descriptor: int, control: int) -> int:
    """A template; and, in each process that it forks, a worker."""
    document = begin(descriptor, TemplateBoot)
    watch = watch_imports()
    from snakepit.workers.process.template import TemplateProgram

    template = TemplateProgram(document, control)
    if not template.load():
        leave(UNLOADABLE)
    birth = template.serve()
    if birth is None:
        return 0
    settled, preloaded = template.settle(birth)
    return live(settled, watch, preloaded)


def begin(descriptor: int, kind: type[boot.Document]) -> boot.Document:
    """Tie this process's life to its broker's, reset its signals, and read the boot document."""
    parent_death.set_death_signal()
    inherited.reset_signals()  # also for what a command starts: an ignored signal passes through exec()
    faulthandler.enable()  # a segfault in the adapter's C code leaves its Python stack on stderr
    document = boot.read(descriptor, kind)
    parent_death.require_parent(document.parent)
    return document


def watch_imports() -> vitals.GilWatch:
    watch = vitals.GilWatch()
    watch.install()
    forgive_output()
    return watch


def live(document: Boot, watch: vitals.GilWatch, preloaded: PreloadedAdapter | None = None) -> int:
    from snakepit.workers.process.worker import (
        WorkerProgram,  # loads gRPC and protobuf: after the watch, and not for --help
    )

    code = WorkerProgram(document, watch, preloaded).live()
    exit_priority.give_way()
    if code:
        leave(code)
    return code


def forgive_output() -> None:
    """A print of odd text must not fail a command: the stream's encoding is the host's affair."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def leave(code: int) -> None:
    """At once: threads and exit handlers that a broken adapter left behind may wait for ever."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the broker's end of the pipe is gone
            continue
    os._exit(code)


def describe(path: str, *, as_json: bool) -> int:
    from snakepit.workers.schema.describe import as_text
    from snakepit.workers.schema.describe import describe as look

    try:
        described = look(path)
    except BaseException as error:  # importing an adapter runs its module, which may do anything
        sys.stderr.write(f"{path} does not load: {type(error).__name__}: {failure.message_of(error)}\n")
        return UNLOADABLE
    sys.stdout.write((json.dumps(described, indent=2) if as_json else as_text(described)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
