"""The identity of the machine that this process runs on."""

from __future__ import annotations

import socket
from pathlib import Path


def machine_boot() -> str:
    """The id of this boot of the machine, after which process ids start anew; empty where there is no /proc."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def host_id() -> str:
    """The id of the boot, which containers of one machine share; elsewhere the name of the host.

    The Unix path in the row of a node can be used on the machine with the same id only.
    """
    return machine_boot() or socket.gethostname()
