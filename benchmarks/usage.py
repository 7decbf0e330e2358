"""CPU seconds and memory of processes, from /proc; zero without /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, without its ended children.

    `stat` counts in ticks of 10 ms: measure long enough.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


def children(pid: int, *, deep: bool = True) -> list[int]:
    """The descendants of a process, or only its children."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            direct = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in direct:
            found += [child, *(children(child) if deep else ())]
    return found


def pss_mb(pids: Iterable[int]) -> float:
    """Proportional set size in MiB: a page shared by n processes counts 1/n in each, so the sum is the real usage."""
    total = 0
    for pid in pids:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1024


class CpuMeter:
    """CPU of each process between `start` and `per_call`."""

    def __init__(self, processes: Mapping[str, Iterable[int]]) -> None:
        self._processes = {name: list(pids) for name, pids in processes.items()}
        self.start()

    def start(self) -> None:
        """Count from now on."""
        self._began = self._now()

    def _now(self) -> dict[str, float]:
        return {name: sum(map(cpu_seconds, pids)) for name, pids in self._processes.items()}

    def per_call(self, calls: int) -> dict[str, float]:
        """Microseconds of CPU per call, by process name."""
        return {name: (now - self._began[name]) / calls * 1e6 for name, now in self._now().items()}
