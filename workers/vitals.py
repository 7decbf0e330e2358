"""What the interpreter is: version, build, whether the GIL is on, and which import switched it on."""

from __future__ import annotations

import os
import platform
import re
import sys
import sysconfig
import warnings
from dataclasses import dataclass
from typing import Any, TextIO

_SWITCHED_ON = re.compile(r"The global interpreter lock \(GIL\) has been enabled to load module '([^']+)'")

BLAS_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def is_free_threaded() -> bool:
    """Whether this build can run without a GIL."""
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def is_gil_enabled() -> bool:
    """Whether the GIL is on now; an import may switch it on at any time."""
    ask = getattr(sys, "_is_gil_enabled", None)  # from 3.13
    return bool(ask()) if ask else True


def blas_threads() -> int:
    """Threads of the numeric libraries, as the environment sets them; 0: they decide themselves."""
    for name in BLAS_VARIABLES:
        text = os.environ.get(name, "").partition(",")[0].strip()
        if text.isdigit():
            return int(text)
    return 0


@dataclass(frozen=True, slots=True)
class Interpreter:
    python: str
    implementation: str
    executable: str
    free_threaded: bool


def interpreter() -> Interpreter:
    return Interpreter(
        python=platform.python_version(),
        implementation=platform.python_implementation(),
        executable=sys.executable or "",
        free_threaded=is_free_threaded(),
    )


class GilWatch:
    """Remembers which module's import switched the GIL on. Python says so once, in a RuntimeWarning.

    It listens in on `warnings.showwarning` and passes every warning on as before.
    """

    def __init__(self) -> None:
        self.culprit = ""

    def install(self) -> None:
        shown = warnings.showwarning

        def listen(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> Any:
            self.notice(str(message))
            return shown(message, category, filename, lineno, file, line)

        warnings.showwarning = listen

    def notice(self, message: str) -> None:
        found = _SWITCHED_ON.match(message)
        if found and not self.culprit:
            self.culprit = found.group(1)
