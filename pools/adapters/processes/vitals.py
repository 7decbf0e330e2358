"""Memory and CPU time of a process and its descendants.

    vitals_of(pid) ─▶ ProcVitals     Linux: the kernel's files, the fast path for sweeps
                   └▶ PsutilVitals   other systems, such as macOS

Proportional memory (PSS) is expensive: the kernel walks all page tables, which takes a millisecond for a worker with
NumPy. Whether a worker's pages have changed since is visible in its fault counters, for a tenth of that. Two hundred
idle workers that are read at each sweep cost the broker 2 % of a core, most of it in the kernel.
"""

from __future__ import annotations

import contextlib
import os
from typing import Protocol

import psutil

TICKS = os.sysconf("SC_CLK_TCK")  # of the kernel's clock in a second
UNCHANGED_PAGES = 32  # pages (mostly of 4 KiB) by which a process may change and still count as unchanged
MAX_SKIPPED = 8  # readings after which memory is read in any case: when a sharer ends, the others' share grows


class ProcessVitals(Protocol):
    """What one process and its descendants use. Not for use by two threads at the same time."""

    def memory_mb(self) -> float | None:
        """Its own memory plus its share of shared memory, in MiB; None when it has ended."""

    def cpu_seconds(self) -> float | None:
        """CPU seconds of it, of its descendants, and of those already reaped; None when it has ended."""


def vitals_of(pid: int) -> ProcessVitals:
    return ProcVitals(pid) if os.path.exists("/proc/self/smaps_rollup") else PsutilVitals(pid)


class ProcVitals:
    """Reads `/proc`, and memory only where pages have changed."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._memory_mb: float | None = None
        self._marks: dict[int, tuple[int, int]] = {}  # each process's counters when the memory was read
        self._skipped = pid % MAX_SKIPPED  # readings since then, from different starts: not all are due in one sweep

    def memory_mb(self) -> float | None:
        marks = {pid: _pages(fields) for pid in descendants(self._pid) if (fields := _stat(pid))}
        self._skipped += 1
        if self._memory_mb is None or self._skipped >= MAX_SKIPPED or self._have_changed(marks):
            sizes = [size for pid in marks if (size := proportional_kb(pid)) is not None]
            self._memory_mb = round(sum(sizes) / 1024, 1) if sizes else None
            self._skipped = 0 if self._marks else self._skipped  # the first reading may be in one sweep for all
            self._marks = marks
        return self._memory_mb

    def _have_changed(self, marks: dict[int, tuple[int, int]]) -> bool:
        then = self._marks
        return marks.keys() != then.keys() or any(
            abs(now - before) > UNCHANGED_PAGES
            for pid in marks
            for now, before in zip(marks[pid], then[pid], strict=True)
        )

    def cpu_seconds(self) -> float | None:
        spent = [sum(fields[11:15]) for pid in descendants(self._pid) if (fields := _stat(pid))]
        return sum(spent) / TICKS if spent else None


class PsutilVitals:
    """Reads through psutil, anew each time."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def memory_mb(self) -> float | None:
        sizes = [size for process in self._family() if (size := _memory_bytes(process))]
        return round(sum(sizes) / 2**20, 1) if sizes else None

    def cpu_seconds(self) -> float | None:
        spent = []
        for process in self._family():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                spent.append(times.user + times.system + times.children_user + times.children_system)
        return sum(spent) if spent else None

    def _family(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self._pid)
            return [process, *process.children(recursive=True)]
        return []


def _memory_bytes(process: psutil.Process) -> int:
    """The best figure that the system gives: PSS (Linux), else memory of its own, else resident memory."""
    with contextlib.suppress(psutil.AccessDenied):  # macOS gives more than resident memory only to root
        try:
            full = process.memory_full_info()
            return int(getattr(full, "pss", 0) or full.uss)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            return 0
    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def descendants(pid: int) -> list[int]:
    """The process and all its descendants, from the kernel's lists of children."""
    found, queue = [], [pid]
    while queue:
        parent = queue.pop()
        found.append(parent)
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                queue += map(int, _read(f"/proc/{parent}/task/{task}/children").split())
    return found


def proportional_kb(pid: int) -> int | None:
    """PSS in KiB: its own memory plus its share of shared memory. RSS would count shared pages once per sharer."""
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1])
    return None


def _stat(pid: int) -> list[int]:
    """The numbers of its `stat` from field 4 on, at index 1; empty when it has ended."""
    # The name in parentheses may itself contain spaces and parentheses. Fields 14 to 17 are four kinds of ticks.
    _, closed, fields = _read(f"/proc/{pid}/stat").rpartition(b")")
    return [0, *map(int, fields.split()[1:])] if closed else []


def _pages(fields: list[int]) -> tuple[int, int]:
    """Page faults so far, and pages that are resident now."""
    return fields[7] + fields[9], fields[21]


def _read(path: str) -> bytes:
    """A file in /proc; empty if its process has ended."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        parts = []
        while part := os.read(descriptor, 65_536):  # the kernel returns a page at a time
            parts.append(part)
        return b"".join(parts)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
