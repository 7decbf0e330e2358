"""Ties a process's life to its parent's: on Linux the kernel kills it when the parent is gone, GIL held or not.

    python -m snakepit.workers.process.parent_death PARENT_PID -- COMMAND...

arms it and becomes COMMAND. The kernel looks at the parent's *thread*: whoever spawns must do so on a thread that lives
as long as it does, its main thread.
"""

from __future__ import annotations

import os
import signal
import sys

PR_SET_PDEATHSIG = 1

ORPHANED = 5  # exit code


class Orphaned(Exception):
    """The parent is not the expected one: it died before the lifeline was armed."""


def arm(parent: int) -> None:
    """Die with the parent. Raises Orphaned if the parent has gone already.

    First armed, then compared: a parent that dies between the two is noticed by one or the other.
    """
    set_death_signal()
    require_parent(parent)


def set_death_signal() -> None:
    """On systems without it the loss of the link to the broker ends a worker, a little later."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


def require_parent(parent: int) -> None:
    found = os.getppid()
    if found != parent:
        raise Orphaned(f"the parent is process {found}, not {parent}: it died before this process was ready")


def main(argv: list[str]) -> int:
    if len(argv) < 3 or not argv[0].isdigit() or argv[1] != "--":
        sys.stderr.write("usage: python -m snakepit.workers.process.parent_death PARENT_PID -- COMMAND...\n")
        return 2
    try:
        arm(int(argv[0]))
        os.execvp(argv[2], argv[2:])
    except Orphaned as why:
        sys.stderr.write(f"{why}\n")
        return ORPHANED
    except OSError as why:
        sys.stderr.write(f"{argv[2]}: {why}\n")
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
