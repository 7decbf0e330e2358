"""Stacks on demand: a signal makes the thread that gets it write its own Python stack into the black box.

The handler is C code, so it also runs while another thread, or C code in this one, holds the GIL; it needs neither a
lock nor memory. A thread writes its own stack only: walking the frames of a thread that runs can crash the process,
with a GIL and without. The broker sends the signal to one thread after the other.

The signal is a real-time one, which programs rarely use. Code of an adapter that installs a handler of its own for it
takes the stacks away; a thread that blocks it is reported as such.
"""

from __future__ import annotations

import faulthandler
import signal


def number() -> int:
    """The signal; real-time ones exist on Linux, where the broker can send one to a thread.

    >>> number() > 0
    True
    """
    lowest = getattr(signal, "SIGRTMIN", None)
    return int(signal.SIGUSR2 if lowest is None else lowest + 9)


def answer_with(descriptor: int) -> None:
    """From now on the signal is answered into this descriptor, which must stay open."""
    faulthandler.register(number(), file=descriptor, all_threads=False, chain=False)
