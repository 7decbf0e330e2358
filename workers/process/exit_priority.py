"""A process that has nothing left to do but to end lets those who work go first.

For some hundred megabytes the kernel needs a tenth of a second to take the pages back, and that is the ending process's
own time: beside busy workers it made their slowest calls. Only the end can be lowered so: without privileges a process
does not get its priority back. The adapter's teardown comes before, at the priority that the worker was given.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

NICE = 10  # a tenth of the share of a process that was left alone, where others want the CPU


def give_way() -> None:
    """Lower this process, all its threads, for good. What the system does not allow is left as it is."""
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError):
        for thread in Path("/proc/self/task").iterdir():  # each has its own; the last one to end takes the memory down
            with contextlib.suppress(ProcessLookupError):
                number = int(thread.name)
                os.setpriority(os.PRIO_PROCESS, number, max(NICE, os.getpriority(os.PRIO_PROCESS, number)))
    # Where the kernel groups processes by session, shares are those of the groups; a worker has its session to itself.
    with contextlib.suppress(OSError):
        if os.getsid(0) == os.getpid():
            Path("/proc/self/autogroup").write_text(str(NICE))
