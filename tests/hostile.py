"""An adapter whose commands attack what the worker shares with its broker."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from snakepit.workers import Adapter, command


class Hostile(Adapter):
    thread_safe = True

    @command(idempotent=True)
    def echo(self, value: Any = None) -> Any:
        return value

    @command
    def truncate_all(self) -> int:
        """Truncate every memory file of the process; return how many could be."""
        truncated = 0
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}").startswith("/memfd:"):
                    os.ftruncate(int(name), 0)
                    truncated += 1
        return truncated
