"""The adapter of the cluster's pools: its answers name the node that ran the call."""

from __future__ import annotations

import os
import time

from snakepit.workers import Adapter, command


class Placed(Adapter):
    thread_safe = True

    @command(idempotent=True)
    def double(self, number: int, seconds: float = 0.0) -> list[int | str]:
        """Return twice the number after a rest, and the node. Idempotent: it may run again on another node."""
        time.sleep(seconds)
        return [2 * number, os.environ["SNAKEPIT_NODE_NAME"]]

    @command
    def once(self, number: int, seconds: float = 0.0) -> list[int | str]:
        """As `double`, not idempotent."""
        time.sleep(seconds)
        return [2 * number, os.environ["SNAKEPIT_NODE_NAME"]]
