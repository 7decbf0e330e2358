"""The exception that a command raised, made again as the `__cause__` of the AdapterError.

Nothing is imported because a worker names it: the class must be in a module that this process has imported already.
Its `__init__` does not run. A class that does not show the message of the worker's exception gives no cause.

>>> cause_of({"type": "KeyError", "args": ["region"]}, "KeyError: 'region'")
KeyError('region')
>>> cause_of({"type": "os.system", "args": ["ls"]}, "system: ls")
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping
from typing import Any


def cause_of(details: Mapping[str, Any], message: str) -> Exception | None:
    """Return the exception, or None where it cannot be made again without loss."""
    arguments = details.get("args")
    kind = _imported_class(str(details.get("type", "")))
    if kind is None or not isinstance(arguments, list):
        return None
    try:
        made = kind.__new__(kind, *arguments)
        made.args = tuple(arguments)
        shown = f"{kind.__name__}: {made}" if str(made) else kind.__name__
    except Exception:  # code of the class itself: it needs what only its `__init__` sets
        return None
    return made if shown == message else None


def _imported_class(name: str) -> type[Exception] | None:
    """The exception class of this name, if a module that is imported has it."""
    module_name, _, class_name = name.rpartition(".")
    module = sys.modules.get(module_name) if module_name else builtins
    # Not getattr: a module's own __getattr__ may import.
    found = vars(module).get(class_name) if module is not None else None
    return found if isinstance(found, type) and issubclass(found, Exception) else None
