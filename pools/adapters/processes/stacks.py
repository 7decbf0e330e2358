"""Reads the Python stacks of a child: one signal to each of its threads, which answer through the shared page.

    /proc/PID/task ─▶ for each thread: tgkill ─▶ wait until it neither waits for nor handles the signal ─▶ read

No privileges are needed and no thread is stopped. Each thread's status in /proc shows whether the signal is pending or
being handled, so the end of an answer is known. It also shows whether the process handles the signal at all: one
that does not would be killed by it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from snakepit.pools.broker.errors import StacksUnavailable
from snakepit.pools.broker.status import StackFrame, ThreadStack
from snakepit.workers.process import stacks
from snakepit.workers.process.shared_page import SharedPage

TIMEOUT = 3.0  # seconds for all threads together
THREAD_TIMEOUT = 0.5  # seconds for one thread
SETTLE = 0.001  # seconds between two looks that find a thread's answer written
MAX_THREADS = 200
MAX_BYTES = 64 * 1024  # of one thread's answer
LINE = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<function>.*)')
BIT = 1 << (stacks.number() - 1)


class _Ended(Exception):
    """The thread, or the process, has ended."""


async def read(pid: int, page: SharedPage, alive: Callable[[], bool]) -> tuple[ThreadStack, ...]:
    """The stacks of all threads, the main thread first. Raises StacksUnavailable.

    `alive` returns whether the child is not reaped yet; until then its pid cannot be another process's.
    """
    send = _sender()
    tasks = Path(f"/proc/{pid}/task")
    try:
        if not _masks(tasks / str(pid))["SigCgt"] & BIT:
            raise StacksUnavailable("The worker has just started, or its code handles the signal itself.")
        threads = sorted(int(name) for name in os.listdir(tasks))[:MAX_THREADS]
    except (_Ended, OSError) as error:
        raise StacksUnavailable("The worker has just ended.") from error
    page.forget_text()
    found, written, end = [], 0, time.monotonic() + TIMEOUT
    for thread in threads:
        try:
            found.append(_facts(tasks / str(thread)))
            note = await _request(lambda: alive() and send(pid, thread), tasks / str(thread), end)  # noqa: B023
        except _Ended:
            found = [one for one in found if one.thread != thread]
            continue
        text = page.read_text(written, MAX_BYTES)
        written += len(text)
        frames = parse(text.decode("utf-8", "replace"))
        found[-1] = _answered(found[-1], frames, note)
    if not any(one.frames for one in found):
        raise StacksUnavailable(
            f"No thread answered signal {stacks.number()}: the adapter's code handles or blocks it."
        )
    return tuple(found)


def parse(text: str) -> tuple[StackFrame, ...]:
    """The frames in an answer, innermost first.

    >>> parse('Stack (most recent call first):\\n  File "a.py", line 3 in f\\n  File "a.py", line 9 in <module>\\n')
    (StackFrame(file='a.py', line=3, function='f'), StackFrame(file='a.py', line=9, function='<module>'))
    """
    return tuple(
        StackFrame(match["file"], 0 if match["line"] == "???" else int(match["line"]), match["function"])
        for line in text.splitlines()
        if (match := LINE.fullmatch(line))
    )


def _answered(facts: ThreadStack, frames: tuple[StackFrame, ...], note: str) -> ThreadStack:
    if not frames and not note:
        note = "a thread of a C library; it runs no Python"
    return ThreadStack(facts.thread, facts.name, facts.state, facts.cpu_seconds, frames, note)


async def _request(send: Callable[[], bool], task: Path, end: float) -> str:
    """Have one thread write its stack, and wait until it has. Returns the reason if it does not."""
    if _masks(task)["SigBlk"] & BIT:
        return "it blocks the signal"
    if not send():
        raise _Ended
    end = min(end, time.monotonic() + THREAD_TIMEOUT)
    pause = 0.0
    seen = False
    while True:
        await asyncio.sleep(pause)
        masks = _masks(task)
        if not (masks["SigPnd"] | masks["SigBlk"]) & BIT:
            if seen:
                return ""
            # Also so for a moment between taking the signal and running its handler, which blocks it: look again.
            seen, pause = True, SETTLE
            continue
        seen = False
        if time.monotonic() > end:
            return "it did not answer: the kernel does not schedule it, or the machine is overloaded"
        pause = min(0.01, pause + 0.0005)


def _masks(task: Path) -> dict[str, int]:
    """A thread's pending, blocked and caught signals, as bit masks."""
    try:
        status = (task / "status").read_text()
    except OSError as error:
        raise _Ended from error
    return {name: int(re.findall(rf"^{name}:\t(\w+)", status, re.MULTILINE)[0], 16) for name in MASKS}


MASKS = ("SigPnd", "SigBlk", "SigCgt")


def _facts(task: Path) -> ThreadStack:
    try:
        head, _, rest = (task / "stat").read_text().rpartition(")")
    except OSError as error:
        raise _Ended from error
    fields = rest.split()
    ticks = int(fields[11]) + int(fields[12])  # utime and stime
    return ThreadStack(int(task.name), head.partition("(")[2], fields[0], ticks / os.sysconf("SC_CLK_TCK"))


def _sender() -> Callable[[int, int], bool]:
    """The C library's tgkill(): Python itself cannot send a signal to one thread of another process."""
    if not os.path.isdir("/proc/self/task"):
        raise StacksUnavailable("Stacks are read through Linux's /proc, and this system has none.")
    try:
        tgkill = ctypes.CDLL(None, use_errno=True).tgkill
    except AttributeError as error:
        raise StacksUnavailable("The broker's C library has no tgkill(); glibc has it since 2.30.") from error
    return lambda pid, thread: tgkill(pid, thread, stacks.number()) == 0
