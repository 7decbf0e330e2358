"""Everything that runs in a worker process. Users write an Adapter whose methods are commands:

>>> class Greeter(Adapter):
...     @command
...     def greet(self, name: str) -> str:
...         return f"Hello {name}"
>>> Greeter().greet(name="Ada")
'Hello Ada'

Importing this package loads neither gRPC nor protobuf: adapters import it, also in tests and in the web process.

To read the code, begin with `adapter` and `context` (what users see), then `call` and `report` (what goes in and out).
`schema` turns a method into a command with checked arguments, `runtime` runs calls, `transport` is the link to the
broker, and `process` is the life of a worker or template from start to exit code. `__main__` starts them.
"""

from __future__ import annotations

from snakepit.workers.adapter import Adapter, command, locked
from snakepit.workers.context import CallCancelled, Context, Snooze

if __name__ != "snakepit.workers":  # a second import under another name would make a second `Adapter` class
    raise ImportError(f"import snakepit.workers, not {__name__}")

__all__ = ["Adapter", "CallCancelled", "Context", "Snooze", "command", "locked"]
