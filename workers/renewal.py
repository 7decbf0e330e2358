"""Makes new in a forked worker what it must not share with its siblings.

What the standard library renews by itself after a fork is left to it: the module `random`, the locks of `logging` and
`threading`, `ssl`, `secrets`. What cannot be renewed here, because only its owner knows it (connections, generators of
the adapter's own, GPU contexts), belongs in `setup()`; docs/preload.md lists both.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from typing import Any

LAST_IDS = ("_last_timestamp", "_last_timestamp_v6", "_last_timestamp_v7", "_last_counter_v7")


@dataclass(frozen=True, slots=True)
class Origin:
    """What preload() may have changed and a spawned worker would have as it was."""

    directory: str
    mask: int  # of files
    signals: frozenset[int]  # that are blocked


def origin() -> Origin:
    mask = os.umask(0)
    os.umask(mask)
    return Origin(os.getcwd(), mask, frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, ())))


def renew(origin: Origin, output: int, scratch: str) -> None:
    """`output` becomes stdout and stderr and is closed; `scratch` is the worker's own directory for temporary files."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.chdir(origin.directory)
    os.umask(origin.mask)
    signal.pthread_sigmask(signal.SIG_SETMASK, origin.signals)
    signal.set_wakeup_fd(-1)
    _renew_scratch(scratch)
    _renew_numpy()
    if (uuid := sys.modules.get("uuid")) is not None:
        for name in LAST_IDS:
            if hasattr(uuid, name):
                setattr(uuid, name, None)


def _renew_scratch(scratch: str) -> None:
    before, os.environ["TMPDIR"] = os.environ.get("TMPDIR"), scratch
    tempfile: Any = sys.modules.get("tempfile")
    if tempfile is not None and tempfile.tempdir == before:  # else the adapter chose a place, and it stays
        tempfile.tempdir = None


def _renew_numpy() -> None:
    """The one generator behind `numpy.random.rand` and its like; only where the adapter imported it."""
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()
