"""The work that is measured, the same for everybody."""

from __future__ import annotations

from workers import Adapter, command

SMALL = "x" * 98  # 100 bytes as JSON


def echo(value: str) -> str:
    return value


class Echo(Adapter):
    thread_safe = True

    @command(idempotent=True)
    def echo(self, value: str) -> str:
        return value
