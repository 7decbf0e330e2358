"""The identity of the machine that this process runs on."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def machine_boot() -> str:
    """The id of this boot of the machine, after which process ids start anew; empty where there is no /proc."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def host_id() -> str:
    """The id of the boot, which containers of one machine share; elsewhere the name of the host."""
    return machine_boot() or socket.gethostname()


def socket_id(path: str) -> str:
    """The machine of a Unix socket, and its file there; empty: there is no file at this path.

    Containers of one machine have the same boot id. Each of them may have another file at the same path, or none. A
    file system gives a new file the number of one that is gone, so the time of its making counts too.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return ""
    return f"{host_id()} {found.st_dev:x}:{found.st_ino:x}:{found.st_mtime_ns:x}"
