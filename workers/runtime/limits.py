"""The resource limits of the worker's process, which a call may change through the module `resource`.

`containment.py` writes them back after a call, once a call has imported that module.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

UNCHANGED = "unlimited"
LIMITS = {
    "Max cpu time": "RLIMIT_CPU",
    "Max file size": "RLIMIT_FSIZE",
    "Max data size": "RLIMIT_DATA",
    "Max stack size": "RLIMIT_STACK",
    "Max core file size": "RLIMIT_CORE",
    "Max open files": "RLIMIT_NOFILE",
    "Max address space": "RLIMIT_AS",
    "Max processes": "RLIMIT_NPROC",
}


def read_limits() -> dict[str, tuple[int, int]]:
    """The limits of this process as the module `resource` shows them, without its import; none outside of Linux."""
    found: dict[str, tuple[int, int]] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/limits").read_text().splitlines():
            name = LIMITS.get(line[:26].strip())
            if name:
                soft, hard = line[26:].split()[:2]
                found[name] = (_limit(soft), _limit(hard))
    return found


def _limit(text: str) -> int:
    return -1 if text == UNCHANGED else int(text)


def restore_limits(limits: Mapping[str, tuple[int, int]]) -> str:
    """Write back the limits that differ; return the name of one that is not possible, empty: there is none."""
    resource: Any = importlib.import_module("resource")
    for name, (soft, hard) in limits.items():
        number = getattr(resource, name)
        if resource.getrlimit(number) == (soft, hard):
            continue
        try:
            resource.setrlimit(number, (soft, hard))
        except (ValueError, OSError):  # a hard limit that was lowered stays so, without a privilege
            return name
    return ""
