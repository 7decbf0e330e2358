"""Stacks on demand: a signal makes the thread that receives it write its own Python stack to the shared page.

The handler is C code. It also runs while another thread, or C code in this one, holds the GIL, and needs neither a lock
nor memory. A thread writes its own stack only: reading the frames of a running thread can crash the process, with a GIL
and without. The broker sends the signal to one thread after the other.

The signal is a real-time one, which programs rarely use. If an adapter installs its own handler for it, stacks cannot
be read; a thread that blocks it is reported as such.
"""

from __future__ import annotations

import faulthandler
import signal


def number() -> int:
    """The signal's number. Real-time signals exist on Linux, where the broker can send one to a thread.

    >>> number() > 0
    True
    """
    lowest = getattr(signal, "SIGRTMIN", None)
    return int(signal.SIGUSR2 if lowest is None else lowest + 9)


def answer_with(descriptor: int) -> None:
    """From now on, answer the signal by writing to this descriptor, which must stay open."""
    faulthandler.register(number(), file=descriptor, all_threads=False, chain=False)
