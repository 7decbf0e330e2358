"""Reads the Python stacks of a live child: one signal to each of its threads, whose answer comes through the black box.

    /proc/PID/task ─▶ for each thread: tgkill ─▶ wait until it neither waits for nor handles the signal ─▶ read

No privileges are needed and nothing is stopped. The kernel says in each thread's status whether the signal is still
pending or being handled, so the end of an answer is known, and no worker can be hit that would die of the signal.
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

PATIENCE = 3.0  # seconds for all threads together
THREAD_PATIENCE = 0.5  # and for one
MOST_THREADS = 200
MOST_BYTES = 64 * 1024  # of one thread's answer
LINE = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<function>.*)')
BIT = 1 << (stacks.number() - 1)


class _Gone(Exception):
    """The thread, or the process, has ended."""


async def read(pid: int, box: SharedPage, alive: Callable[[], bool]) -> tuple[ThreadStack, ...]:
    """The stacks of all threads, the main thread first. Raises StacksUnavailable.

    `alive` says whether the child is not reaped yet: until then its number cannot be another process's.
    """
    send = _sender()
    tasks = Path(f"/proc/{pid}/task")
    try:
        if not _masks(tasks / str(pid))["SigCgt"] & BIT:
            raise StacksUnavailable("The worker has only just been started, or its code gave the signal away.")
        threads = sorted(int(name) for name in os.listdir(tasks))[:MOST_THREADS]
    except (_Gone, OSError) as error:
        raise StacksUnavailable("The worker has just ended.") from error
    box.forget_text()
    found, written, end = [], 0, time.monotonic() + PATIENCE
    for thread in threads:
        try:
            found.append(_facts(tasks / str(thread)))
            note = await _ask(lambda: alive() and send(pid, thread), tasks / str(thread), end)  # noqa: B023
        except _Gone:
            found = [one for one in found if one.thread != thread]
            continue
        text = box.read_text(written, MOST_BYTES)
        written += len(text)
        frames = parse(text.decode("utf-8", "replace"))
        found[-1] = _answered(found[-1], frames, note)
    if not any(one.frames for one in found):
        raise StacksUnavailable(
            f"No thread answered signal {stacks.number()}: the adapter's code has taken it, or blocks it everywhere."
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
        note = "a thread of a C library: no Python runs in it"
    return ThreadStack(facts.thread, facts.name, facts.state, facts.cpu_seconds, frames, note)


async def _ask(send: Callable[[], bool], task: Path, end: float) -> str:
    """Have one thread write its stack, and wait until it has. Returns why it did not, or an empty string."""
    if _masks(task)["SigBlk"] & BIT:
        return "it blocks the signal"
    if not send():
        raise _Gone
    end = min(end, time.monotonic() + THREAD_PATIENCE)
    pause = 0.0
    while True:
        await asyncio.sleep(pause)
        masks = _masks(task)
        if not (masks["SigPnd"] | masks["SigBlk"]) & BIT:
            return ""
        if time.monotonic() > end:
            return "it did not answer: the kernel does not let it run, or the machine is overloaded"
        pause = min(0.01, pause + 0.0005)


def _masks(task: Path) -> dict[str, int]:
    """A thread's pending, blocked and caught signals, as sets of bits."""
    try:
        status = (task / "status").read_text()
    except OSError as error:
        raise _Gone from error
    return {name: int(re.findall(rf"^{name}:\t(\w+)", status, re.MULTILINE)[0], 16) for name in MASKS}


MASKS = ("SigPnd", "SigBlk", "SigCgt")


def _facts(task: Path) -> ThreadStack:
    try:
        head, _, rest = (task / "stat").read_text().rpartition(")")
    except OSError as error:
        raise _Gone from error
    fields = rest.split()
    ticks = int(fields[11]) + int(fields[12])  # utime and stime
    return ThreadStack(int(task.name), head.partition("(")[2], fields[0], ticks / os.sysconf("SC_CLK_TCK"))


def _sender() -> Callable[[int, int], bool]:
    """Python cannot signal one thread of another process; the C library can."""
    if not os.path.isdir("/proc/self/task"):
        raise StacksUnavailable("Stacks are read through Linux's /proc, and this system has none.")
    try:
        tgkill = ctypes.CDLL(None, use_errno=True).tgkill
    except AttributeError as error:
        raise StacksUnavailable("The broker's C library has no tgkill(); glibc has it since 2.30.") from error
    return lambda pid, thread: tgkill(pid, thread, stacks.number()) == 0
