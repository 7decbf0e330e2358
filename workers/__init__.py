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

from workers.adapter import Adapter, command, locked
from workers.context import CallCancelled, Context

__all__ = ["Adapter", "CallCancelled", "Context", "command", "locked"]
