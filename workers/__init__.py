"""What runs inside a warm worker process, and what a user writes: an Adapter whose methods are commands.

>>> class Greeter(Adapter):
...     @command
...     def greet(self, name: str) -> str:
...         return f"Hello {name}"
>>> Greeter().greet(name="Ada")
'Hello Ada'

Importing this package loads neither gRPC nor protobuf: adapters import it, also in tests and in the web process.
"""

from __future__ import annotations

from snakepit.workers.adapter import Adapter, command, locked
from snakepit.workers.context import CallCancelled, Context

if __name__ != "snakepit.workers":  # a second import under another name would make a second `Adapter` class
    raise ImportError(f"import snakepit.workers, not {__name__}")

__all__ = ["Adapter", "CallCancelled", "Context", "command", "locked"]
