"""What a process and its descendants use, as the kernel counts it (Linux).

Their proportional memory is dear: for it the kernel walks all their page tables, a millisecond for a worker with NumPy.
That a worker's pages have not moved since is told by its fault counters, for a tenth of that. Two hundred workers that
have nothing to do cost a broker 2 % of a core where they are read at each sweep, most of it in the kernel.
"""

from __future__ import annotations

import contextlib
import os

TICKS = os.sysconf("SC_CLK_TCK")  # of the kernel's clock in a second
MOVED = 32  # pages, of 4 KiB mostly, that a process may have touched or given back and still count as it was
LOOKS = 8  # after which memory is read in any case: what is shared weighs more when a sharer has gone


class Vitals:
    """Of one process. Not for two threads at once."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._memory_mb: float | None = None
        self._marks: dict[int, tuple[int, int]] = {}  # when the memory was read
        self._looks = pid % LOOKS  # since it was read: not all are due in the same sweep

    def memory_mb(self) -> float | None:
        """Memory of its own, and its share of what it shares, in MiB; None once it is gone."""
        marks = {pid: _pages(fields) for pid in descendants(self._pid) if (fields := _stat(pid))}
        self._looks += 1
        if self._memory_mb is None or self._looks >= LOOKS or self._have_moved(marks):
            sizes = [size for pid in marks if (size := proportional_kb(pid)) is not None]
            self._memory_mb = round(sum(sizes) / 1024, 1) if sizes else None
            self._looks = 0 if self._marks else self._looks  # the first reading of all may be in one sweep
            self._marks = marks
        return self._memory_mb

    def _have_moved(self, marks: dict[int, tuple[int, int]]) -> bool:
        then = self._marks
        return marks.keys() != then.keys() or any(
            abs(now - before) > MOVED for pid in marks for now, before in zip(marks[pid], then[pid], strict=True)
        )

    def cpu_seconds(self) -> float | None:
        """CPU time of it, its descendants, and those of them that were reaped; None once it is gone."""
        spent = [sum(fields[11:15]) for pid in descendants(self._pid) if (fields := _stat(pid))]
        return sum(spent) / TICKS if spent else None


def descendants(pid: int) -> list[int]:
    """The process and all that descend from it, from the kernel's own lists of children."""
    found, queue = [], [pid]
    while queue:
        parent = queue.pop()
        found.append(parent)
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                queue += map(int, _read(f"/proc/{parent}/task/{task}/children").split())
    return found


def proportional_kb(pid: int) -> int | None:
    """PSS: memory of its own, plus its share of what it shares. RSS counts shared pages once for each sharer."""
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1])
    return None


def _stat(pid: int) -> list[int]:
    """The numbers of its `stat` from the field 4 on, at index 1; none once it is gone."""
    # The name in parentheses may hold spaces and parentheses itself. Fields 14 to 17 are four kinds of ticks.
    _, closed, fields = _read(f"/proc/{pid}/stat").rpartition(b")")
    return [0, *map(int, fields.split()[1:])] if closed else []


def _pages(fields: list[int]) -> tuple[int, int]:
    """Faults that brought pages in, ever, and pages that are there now."""
    return fields[7] + fields[9], fields[21]


def _read(path: str) -> bytes:
    """A file of the kernel's; empty if its process is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        parts = []
        while part := os.read(descriptor, 65_536):  # a page at a time, of a long one
            parts.append(part)
        return b"".join(parts)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
