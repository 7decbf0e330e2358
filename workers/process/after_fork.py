"""Makes new in a forked worker what it must not share with its siblings.

What the standard library renews by itself after a fork is left to it: the module `random`, the locks of `logging` and
`threading`, `ssl`, `secrets`. What a spawned worker would have from `preload()` too, such as its working directory or
signal handlers, is left alone. What only its owner knows (connections, generators of the adapter's own, GPU contexts)
belongs in `setup()`; docs/howto/preload.md lists all three.
"""

from __future__ import annotations

import os
import sys
from typing import Any

LAST_IDS = ("_last_timestamp", "_last_timestamp_v6", "_last_timestamp_v7", "_last_counter_v7")


def renew(output: int, scratch: str) -> None:
    """`output` becomes stdout and stderr and is closed; `scratch` is the worker's own directory for temporary files."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    _renew_scratch(scratch)
    _renew_numpy()
    _renew_uuid()


def _renew_scratch(scratch: str) -> None:
    """Only if it was the template's own: the pool's environment or the adapter may have chosen another place."""
    before = os.environ.get("TMPDIR", "")
    if os.path.dirname(before) != os.path.dirname(scratch):
        return
    os.environ["TMPDIR"] = scratch
    tempfile: Any = sys.modules.get("tempfile")
    if tempfile is not None and tempfile.tempdir == before:
        tempfile.tempdir = None


def _renew_numpy() -> None:
    """The one generator behind `numpy.random.rand` and its like; only where the adapter imported it."""
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()


def _renew_uuid() -> None:
    """Time-based ids go on from the last one, which two siblings must not both do."""
    uuid = sys.modules.get("uuid")
    for name in LAST_IDS:
        if hasattr(uuid, name):
            setattr(uuid, name, None)
