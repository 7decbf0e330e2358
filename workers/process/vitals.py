"""Facts about the interpreter: version, build, whether the GIL is on, and which import switched it on."""

from __future__ import annotations

import os
import platform
import re
import sys
import sysconfig
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from types import ModuleType
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
    """Threads of the numeric libraries, as the environment sets them; 0: their own default."""
    for name in BLAS_VARIABLES:
        text = os.environ.get(name, "").partition(",")[0].strip()
        if text.isdigit():
            return int(text)
    return 0


@dataclass(frozen=True, slots=True)
class InterpreterInfo:
    python: str
    implementation: str
    executable: str
    free_threaded: bool


def interpreter() -> InterpreterInfo:
    return InterpreterInfo(
        python=platform.python_version(),
        implementation=platform.python_implementation(),
        executable=sys.executable or "",
        free_threaded=is_free_threaded(),
    )


def cores() -> int:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class GilWatch:
    """Records which module's import switched the GIL on, and calls `on_found` when that happens.

    Python names the module in a RuntimeWarning: this wraps `warnings.showwarning` and passes every warning on. Where
    warnings are switched off, it checks the GIL before and after each extension module is loaded.
    """

    def __init__(self) -> None:
        self.culprit = ""
        self.on_found: Callable[[], None] | None = None
        self._loading = 0
        self._lock = threading.Lock()

    def is_gil_enabled(self) -> bool:
        """Whether the GIL stays on. While an extension module loads, Python switches it on for that time only."""
        return is_gil_enabled() and (bool(self.culprit) or not self._loading)

    def install(self) -> None:
        self._wrap_warnings()
        if is_free_threaded():
            self._watch_extensions()

    def _watch_extensions(self) -> None:
        create = ExtensionFileLoader.create_module

        def create_module(loader: ExtensionFileLoader, spec: ModuleSpec) -> ModuleType:
            if self.culprit or (is_gil_enabled() and not self._loading):
                return create(loader, spec)  # it is on already: no import of this process is the cause
            with self._lock:
                self._loading += 1
            try:
                return create(loader, spec)
            finally:
                with self._lock:
                    self._loading -= 1
                    last = not self._loading  # while an outer module loads, the cause is not known yet
                if last and is_gil_enabled():
                    self._found(spec.name)

        ExtensionFileLoader.create_module = create_module  # type: ignore[method-assign,assignment]

    def _found(self, module: str) -> None:
        if not self.culprit:
            self.culprit = module
            if self.on_found:
                self.on_found()

    def _wrap_warnings(self) -> None:
        shown = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> Any:
            self.notice(str(message))
            return shown(message, category, filename, lineno, file, line)

        warnings.showwarning = show

    def notice(self, message: str) -> None:
        found = _SWITCHED_ON.match(message)
        if found:
            self._found(found.group(1))
