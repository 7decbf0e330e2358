"""Resets in a forked worker what it must not share with the other workers of its template.

The standard library resets some things itself after a fork: the module `random`, the locks of `logging` and
`threading`, `ssl`, `secrets`. What `preload()` would also change in a spawned worker, such as its working directory or
signal handlers, is kept. What only the adapter can make again (connections, its own random generators, GPU contexts)
belongs in `setup()`. docs/howto/preload.md lists all three.
"""

from __future__ import annotations

import os
import sys
from typing import Any

LAST_IDS = ("_last_timestamp", "_last_timestamp_v6", "_last_timestamp_v7", "_last_counter_v7")


def reset(output: int, scratch: str) -> None:
    """Make `output` stdout and stderr, and close it. `scratch` is the worker's own directory for temporary files."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    _reset_scratch(scratch)
    _reset_numpy()
    _reset_uuid()


def _reset_scratch(scratch: str) -> None:
    """Only where it was the template's own: the pool's environment or the adapter may have set another directory."""
    before = os.environ.get("TMPDIR", "")
    if os.path.dirname(before) != os.path.dirname(scratch):
        return
    os.environ["TMPDIR"] = scratch
    if os.environ.get("HOME") == before:  # a worker's user without a home
        os.environ["HOME"] = scratch
    tempfile: Any = sys.modules.get("tempfile")
    if tempfile is not None and tempfile.tempdir == before:
        tempfile.tempdir = None


def _reset_numpy() -> None:
    """Seed the global generator of `numpy.random`, if the adapter imported it."""
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()


def _reset_uuid() -> None:
    """Forget the last time-based id: two workers that continue from the same one would make equal ids."""
    uuid = sys.modules.get("uuid")
    for name in LAST_IDS:
        if hasattr(uuid, name):
            setattr(uuid, name, None)
