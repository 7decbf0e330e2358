"""Hides a process's memory and secrets from other processes of its user, among them workers.

A process may read the memory and the environment of another one of the same user, unless that one is not *dumpable*.
The broker and the programs of the site turn this off for themselves. Root, and processes with CAP_SYS_PTRACE, may still
read both; so the secrets are also removed from the block of memory that /proc/PID/environ shows.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

PR_SET_DUMPABLE = 4
SECRET_NAME = re.compile(r"SECRET|PASSW|TOKEN|KEY|CREDENTIAL|DSN|_UR[IL]$", re.IGNORECASE)
SECRET_VALUE = re.compile(r"://[^/@\s]*:[^/@\s]+@")  # a URL with a password
ENVIRONMENT = slice(47, 49)  # fields of /proc/self/stat behind the process's name: begin and end of the environment


def hide() -> None:
    """Make this process unreadable for others of its user, and remove the secrets from its shown environment."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    hide_secrets()


def secret_names(environ: Mapping[str, str]) -> list[str]:
    """The variables that look like secrets.

    >>> secret_names({"DJANGO_SECRET_KEY": "x", "PATH": "/bin", "BROKER": "redis://:pw@host/0", "DATABASE_URL": "x"})
    ['DJANGO_SECRET_KEY', 'BROKER', 'DATABASE_URL']
    """
    return [name for name, value in environ.items() if SECRET_NAME.search(name) or SECRET_VALUE.search(value)]


def hide_secrets() -> None:
    """Overwrite the secrets in the memory that the kernel shows as the environment; os.environ keeps them.

    The settings, and libraries such as libpq, read variables also later, so they get copies elsewhere first.
    """
    names = secret_names(os.environ)
    for name in names:
        os.environ[name] = os.environ[name]
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = map(int, fields[ENVIRONMENT])
        block = b"\0" + ctypes.string_at(start, end - start)
        for name in names:
            _erase(start, block, os.fsencode(name))


def _erase(start: int, block: bytes, name: bytes) -> None:
    """Overwrite the value of one variable. `block` has one byte more at its begin than the memory at `start`."""
    at = block.find(b"\0" + name + b"=")
    if at < 0:
        return
    value = at + len(name) + 2
    length = block.find(b"\0", value) - value
    if length > 0:
        ctypes.memset(start + value - 1, 0, length)
