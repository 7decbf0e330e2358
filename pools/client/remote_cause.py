"""The exception that a command raised, made again as the `__cause__` of the AdapterError.

Nothing is imported because a worker names it: the class must be in a module that this process has imported already.
No code of the class runs, because it would run on the client's own thread: a class with a `__str__` or a `__new__` in
Python gives no cause. Neither does one that does not show the message of the worker's exception.

>>> cause_of({"type": "KeyError", "args": ["region"]}, "KeyError: 'region'")
KeyError('region')
>>> cause_of({"type": "os.system", "args": ["ls"]}, "system: ls")
"""

from __future__ import annotations

import builtins
import sys
import types
from collections.abc import Mapping
from typing import Any

# What making and showing an exception calls, and how a class in C has it.
CALLED = ("__new__", "__str__", "__repr__", "__getattribute__", "__getattr__", "__setattr__", "args")
OF_C = (types.BuiltinFunctionType, types.WrapperDescriptorType, types.GetSetDescriptorType)


def cause_of(details: Mapping[str, Any], message: str) -> Exception | None:
    """Return the exception, or None where it cannot be made again without loss."""
    arguments = details.get("args")
    kind = _imported_class(str(details.get("type", "")))
    if kind is None or not isinstance(arguments, list) or _has_code(kind):
        return None
    try:
        made = kind.__new__(kind, *arguments)
        made.args = tuple(arguments)
        shown = f"{kind.__name__}: {made}" if str(made) else kind.__name__
    except Exception:  # a class in C that needs other arguments
        return None
    return made if shown == message else None


def _has_code(kind: type[Exception]) -> bool:
    """Whether making or showing an exception of this class runs code in Python."""
    found = (vars(base)[name] for base in kind.__mro__ for name in CALLED if name in vars(base))
    return type(kind) is not type or not all(isinstance(one, OF_C) for one in found)


def _imported_class(name: str) -> type[Exception] | None:
    """The exception class of this name, if a module that is imported has it."""
    module_name, _, class_name = name.rpartition(".")
    module = sys.modules.get(module_name) if module_name else builtins
    # Not getattr: a module's own __getattr__ may import.
    found = vars(module).get(class_name) if module is not None else None
    return found if isinstance(found, type) and issubclass(found, Exception) else None
