"""Ends a process with its parent: on Linux the kernel kills it when the parent has ended, also if the GIL is held.

    python -m snakepit.workers.process.parent_death PARENT_PID -- COMMAND...

sets this up and then becomes COMMAND. For the kernel the parent is a *thread*: processes must be spawned on a thread
that lives as long as its process, the main thread.
"""

from __future__ import annotations

import os
import signal
import sys

PR_SET_PDEATHSIG = 1

ORPHANED = 5  # exit code


class Orphaned(Exception):
    """The parent is not the expected one: it ended before this process was ready."""


def end_with(parent: int) -> None:
    """End with the parent. Raises Orphaned if the parent has ended already.

    The signal is set first and the parent compared second, so that an end between the two is noticed.
    """
    set_death_signal()
    require_parent(parent)


def set_death_signal() -> None:
    """Have the kernel kill this process when its parent ends. Elsewhere the lost link ends a worker, a bit later."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


def require_parent(parent: int) -> None:
    found = os.getppid()
    if found != parent:
        raise Orphaned(f"the parent is process {found}, not {parent}: it ended before this process was ready")


def main(argv: list[str]) -> int:
    if len(argv) < 3 or not argv[0].isdigit() or argv[1] != "--":
        sys.stderr.write("usage: python -m snakepit.workers.process.parent_death PARENT_PID -- COMMAND...\n")
        return 2
    try:
        end_with(int(argv[0]))
        os.execvp(argv[2], argv[2:])
    except Orphaned as why:
        sys.stderr.write(f"{why}\n")
        return ORPHANED
    except OSError as why:
        sys.stderr.write(f"{argv[2]}: {why}\n")
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
