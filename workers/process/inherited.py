"""What a process inherits from the program that starts it: signals and standard streams, put back to their defaults.

A signal stays ignored or blocked through exec(), and a closed descriptor stays closed. A broker that ignores or blocks
SIGTERM does not end; one that ignores SIGCHLD loses the exit codes of its workers. The number of a closed standard
stream goes to the next file that is opened, which then receives what Python or a C library writes there.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

OF_PYTHON = {"SIGPIPE", "SIGXFSZ", "SIGXFZ"}  # every Python process ignores these


def survive(number: int, frame: FrameType | None) -> None:
    """Do nothing on SIGHUP: `nohup` asked for it. Unlike an ignored signal, a handler ends at exec()."""


def restore() -> None:
    """Open the standard streams and reset the signals. Call it first, on the main thread."""
    open_standard_streams()
    reset_signals()


def reset_signals() -> None:
    """Give ignored signals their defaults, and block none."""
    for number in signal.valid_signals():
        if signal.getsignal(number) is not signal.SIG_IGN or _is_pythons(number):
            continue
        if number == signal.SIGHUP:
            signal.signal(number, survive)
        else:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _is_pythons(number: int) -> bool:
    return getattr(number, "name", "") in OF_PYTHON


def open_standard_streams() -> None:
    """Open /dev/null in the place of each standard descriptor that is closed."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            _open(descriptor, name)


def _open(descriptor: int, name: str) -> None:
    mode = "w" if descriptor else "r"
    opened = os.open(os.devnull, os.O_WRONLY if descriptor else os.O_RDONLY)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)
    os.set_inheritable(descriptor, True)
    if getattr(sys, name) is None:  # so Python starts where the descriptor is closed
        setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))
