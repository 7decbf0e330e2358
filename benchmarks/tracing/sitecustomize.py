"""Writes every call of one of our functions to a file, in each process that inherits SNAKEPIT_TRACE.

`benchmarks.trace` puts this directory on PYTHONPATH; Python imports `sitecustomize` before anything else, so the traced
processes need no code for it. A line is: monotonic nanoseconds, file below the repository, function.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = str(Path(__file__).resolve().parents[2]) + os.sep
OURS = ("pools" + os.sep, "workers" + os.sep, "snakepit" + os.sep, "snakepit_site" + os.sep)


def start(directory: str) -> None:
    """Trace this process, all of its threads, from now on."""
    role = "worker" if "--worker" in sys.orig_argv else "broker" if "--broker" in sys.orig_argv else "client"
    descriptor = os.open(f"{directory}/{role}-{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    names: dict[str, str] = {}  # of source files, below the root; empty: not ours

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        name = names.get(code.co_filename)
        if name is None:
            path = os.path.realpath(code.co_filename)
            name = path.removeprefix(ROOT) if path.startswith(ROOT) else ""
            names[code.co_filename] = name = name if name.startswith(OURS) else ""
        if name:
            os.write(descriptor, f"{time.monotonic_ns()} {name} {code.co_qualname}\n".encode())

    threading.setprofile(profile)
    sys.setprofile(profile)


if os.environ.get("SNAKEPIT_TRACE"):
    start(os.environ["SNAKEPIT_TRACE"])
