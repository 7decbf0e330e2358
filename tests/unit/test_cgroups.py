"""Control groups as the kernel writes them: files in a folder that stands for the root of the file system."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from snakepit.pools.adapters.processes.free_memory import MemoryShort, check_free_memory
from snakepit.pools.cgroups import CgroupLimits, memory_limit, read_limits, usable_cores

MIB = 2**20


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def v2(root: Path, group: str, **files: str) -> Path:
    write(root, {"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/cgroup.controllers": "cpu memory pids"})
    return write(root, {f"sys/fs/cgroup/{group}/{name.replace('__', '.')}": text for name, text in files.items()})


def v1(root: Path, **files: str) -> Path:
    write(root, {"proc/self/cgroup": "5:memory:/a\n4:cpu,cpuacct:/a\n3:pids:/a\n0::/a"})
    folders = {"cpu": "cpu,cpuacct", "memory": "memory", "pids": "pids"}
    for name, text in files.items():
        folder = folders[name.partition("__")[0]]
        write(root, {f"sys/fs/cgroup/{folder}/a/{name.replace('__', '.')}": text})
    return root


def test_version_2_gives_quota_memory_and_processes(tmp_path: Path) -> None:
    root = v2(
        tmp_path, "a/b", cpu__max="150000 100000", cpu__stat="nr_periods 10\nnr_throttled 4",
        memory__max=str(500 * MIB), memory__current=str(200 * MIB), memory__events="oom 3\noom_kill 2",
        pids__max="100", pids__current="7",
    )  # fmt: skip
    assert read_limits(root=root) == CgroupLimits(
        cores=1.5, throttled=0.4, memory=500 * MIB, memory_used=200 * MIB, oom_kills=2, processes=100, processes_now=7
    )
    assert usable_cores(root) == 2


def test_version_1_gives_the_same(tmp_path: Path) -> None:
    root = v1(
        tmp_path, cpu__cfs_quota_us="150000", cpu__cfs_period_us="100000", cpu__stat="nr_periods 10\nnr_throttled 4",
        memory__limit_in_bytes=str(500 * MIB), memory__usage_in_bytes=str(200 * MIB),
        memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 2", pids__max="100", pids__current="7",
    )  # fmt: skip
    assert read_limits(root=root) == CgroupLimits(
        cores=1.5, throttled=0.4, memory=500 * MIB, memory_used=200 * MIB, oom_kills=2, processes=100, processes_now=7
    )
    assert usable_cores(root) == 2


def test_the_file_cache_that_the_kernel_drops_is_not_used_memory(tmp_path: Path) -> None:
    stat = f"anon 1\ninactive_file {60 * MIB}\ntotal_inactive_file {70 * MIB}"
    memory = {"memory__max": str(500 * MIB), "memory__current": str(200 * MIB), "memory__stat": stat}
    root = v2(tmp_path / "2", "a/b", **memory)
    assert read_limits(root=root).memory_used == 140 * MIB
    assert memory_limit(root) == (500 * MIB, 140 * MIB)
    root = v1(
        tmp_path / "1",
        memory__limit_in_bytes=str(500 * MIB), memory__usage_in_bytes=str(200 * MIB), memory__stat=stat,
    )  # fmt: skip
    assert read_limits(root=root).memory_used == 130 * MIB
    assert memory_limit(root) == (500 * MIB, 130 * MIB)


def test_no_worker_starts_while_almost_no_memory_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = SimpleNamespace(available=50 * MIB, total=1000 * MIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    root = v2(tmp_path, "a/b", memory__max=str(500 * MIB), memory__current=str(400 * MIB))
    check_free_memory(root)
    v2(tmp_path, "a/b", memory__current=str(490 * MIB))
    with pytest.raises(MemoryShort, match=r"only 10 MiB of the 500 MiB of the control group of the broker are free"):
        check_free_memory(root)
    v2(tmp_path, "a/b", memory__stat=f"active_file {100 * MIB}")
    check_free_memory(root)  # the kernel drops cached files, also those that are read often
    machine.available = 20 * MIB
    with pytest.raises(MemoryShort, match=r"only 20 MiB of the 1,000 MiB of the machine are free.* below 30 MiB"):
        check_free_memory(root)
    machine.available, machine.total = 3 * 2**30, 2**40
    check_free_memory(root)  # 3 % of a large machine are more than any batch of workers takes
    machine.available = 2**30
    with pytest.raises(MemoryShort, match="below 2,048 MiB"):
        check_free_memory(root)


def test_no_limit_differs_from_a_limit(tmp_path: Path) -> None:
    root = v2(tmp_path / "2", "a/b", cpu__max="max 100000", memory__max="max", memory__current="5", pids__max="max")
    assert read_limits(root=root) == CgroupLimits(memory_used=5)
    root = v1(
        tmp_path / "1", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000",
        memory__limit_in_bytes="9223372036854771712", memory__usage_in_bytes="5",
    )  # fmt: skip
    assert read_limits(root=root) == CgroupLimits(memory_used=5)
    assert usable_cores(root) == 8


def test_a_group_above_the_own_one_may_be_the_one_that_limits(tmp_path: Path) -> None:
    v2(tmp_path, "a/b", cpu__max="400000 100000", memory__max=str(900 * MIB), memory__current=str(100 * MIB))
    v2(tmp_path, "a", cpu__max="200000 100000", memory__max=str(1000 * MIB), memory__current=str(950 * MIB))
    found = read_limits(root=tmp_path)
    assert (found.cores, found.memory, found.memory_used) == (2.0, 1000 * MIB, 950 * MIB)


def test_a_container_without_a_namespace_reads_the_root(tmp_path: Path) -> None:
    write(
        tmp_path, {"proc/self/cgroup": "4:memory:/docker/abc", "sys/fs/cgroup/memory/memory.limit_in_bytes": "1048576"}
    )
    assert read_limits(root=tmp_path).memory == MIB


def test_another_process_is_read_by_its_number(tmp_path: Path) -> None:
    v2(tmp_path, "a/b", cpu__max="100000 100000")
    v2(tmp_path, "c", cpu__max="300000 100000")
    write(tmp_path, {"proc/17/cgroup": "0::/c"})
    assert read_limits(17, root=tmp_path).cores == 3.0


@pytest.mark.parametrize("files", [{}, {"proc/self/cgroup": "0::/a"}, {"proc/self/cgroup": "3:cpu:/a\n0::/a"}])
def test_a_system_without_control_groups_has_no_limits(tmp_path: Path, files: dict[str, str]) -> None:
    assert read_limits(root=write(tmp_path, files)) == CgroupLimits()
    assert usable_cores(tmp_path) == 8


def test_a_quota_below_one_core_leaves_one(tmp_path: Path) -> None:
    assert usable_cores(v2(tmp_path, "a/b", cpu__max="20000 100000")) == 1


def test_the_affinity_counts_where_python_does_not_count_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5}, raising=False)
    assert usable_cores(tmp_path) == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert usable_cores(tmp_path) == 4
