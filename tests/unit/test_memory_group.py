"""The deaths that the limit of a memory cgroup explains: the kernel's files in a folder, of both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from snakepit.pools.adapters.processes.memory_group import RECENT, MemoryGroup

V2 = ("0::/{group}", "sys/fs/cgroup/{group}/memory.events", "low 0\noom 9\noom_kill {count}\n")
V1 = ("4:memory:/{group}\n0::/", "sys/fs/cgroup/memory/{group}/memory.oom_control", "oom_kill {count}\n")


class Machine:
    def __init__(self, root: Path, version: tuple[str, str, str]) -> None:
        self.root = root
        self.now = 0.0
        self._lines, self._events, self._text = version
        self.write("sys/fs/cgroup/cgroup.controllers", "memory")

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def place(self, pid: int, group: str) -> None:
        self.write(f"proc/{pid}/cgroup", self._lines.format(group=group))

    def kills(self, group: str, count: int) -> None:
        self.write(self._events.format(group=group), self._text.format(count=count))

    def watch(self, pid: int) -> MemoryGroup:
        return MemoryGroup(pid, self.root, lambda: self.now)


@pytest.fixture(params=[V2, V1], ids=["v2", "v1"])
def machine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(MemoryGroup, "_counted", {})
    made = Machine(tmp_path, request.param)
    made.kills("a", 3)
    made.kills("b", 0)
    for pid in (7, 8):
        made.place(pid, "a")
    return made


def test_a_new_kill_of_the_group_explains_one_death(machine: Machine) -> None:
    first, second = machine.watch(7), machine.watch(8)
    machine.kills("a", 4)
    first.sample()
    second.sample()
    assert first.explains_kill()
    assert not second.explains_kill()


def test_kills_before_the_process_began_explain_nothing(machine: Machine) -> None:
    group = machine.watch(7)
    group.sample()
    assert not group.explains_kill()


def test_an_old_kill_ended_another_process(machine: Machine) -> None:
    group = machine.watch(7)
    machine.kills("a", 4)
    group.sample()
    machine.now += RECENT + 1.0
    group.sample()
    assert not group.explains_kill()


def test_a_process_that_moved_counts_in_its_new_group(machine: Machine) -> None:
    group = machine.watch(7)
    machine.place(7, "b")
    group.sample()
    machine.kills("b", 1)
    group.sample()
    assert group.explains_kill()


@pytest.mark.parametrize("version", [V1])
def test_an_ended_process_is_in_the_root_in_version_1_and_its_last_group_counts(
    version: tuple[str, str, str], tmp_path: Path
) -> None:
    machine = Machine(tmp_path, version)
    machine.kills("a", 0)
    machine.place(7, "a")
    group = machine.watch(7)
    machine.kills("a", 1)
    machine.write("proc/7/cgroup", "4:memory:/\n0::/")
    group.sample()
    assert group.explains_kill()


@pytest.mark.parametrize("files", [{}, {"proc/7/cgroup": "3:cpu:/a\n"}])
def test_a_system_without_memory_groups_explains_nothing(files: dict[str, str], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    group = MemoryGroup(7, tmp_path)
    group.sample()
    assert not group.explains_kill()
