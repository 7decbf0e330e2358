"""Which files a sandbox leaves open, and what a machine without the kernel's means answers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from snakepit.workers.process import sandbox
from snakepit.workers.process.boot import Boot, BootInvalid, SandboxBoot
from snakepit.workers.process.sandbox import READ, READ_DIR, WRITE_FILE, SandboxUnavailable

PROJECT = ("app/__init__.py", "manage.py", "fast.so", "db.sqlite3", ".env", "secret_key", "var/dump",
    "var/old/dump", ".git/hook.py", "space/part/__init__.py", "space/data")  # fmt: skip


def opened(path: Path, found: list[sandbox.Rule]) -> bool:
    """Whether a rule lets the file be read."""
    return any(rule.access & sandbox.READ_FILE and rule.path in (path, *path.parents) for rule in found)


def test_of_a_project_only_code_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROJECT:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("x")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    found = list(sandbox.rules(SandboxBoot(paths=(), scratch=str(tmp_path / "scratch"))))
    code = {"app/__init__.py", "manage.py", "fast.so", "space/part/__init__.py"}
    assert {name for name in PROJECT if opened(tmp_path / name, found)} == code
    assert sandbox.Rule(tmp_path, READ_DIR) in found  # the import system lists it
    assert not opened(Path("/etc/passwd"), found)


def test_the_paths_of_the_pool_are_read_and_where_it_says_so_written(tmp_path: Path) -> None:
    found = list(sandbox.rules(SandboxBoot(paths=(str(tmp_path), f"{tmp_path}:rw"), scratch="/none")))
    assert next(rule.access for rule in found if rule.path == tmp_path) == READ
    assert [rule.access for rule in found if rule.path == tmp_path][1] & WRITE_FILE


def test_a_path_that_does_not_exist_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SandboxUnavailable, match=r"paths: .*/missing does not exist"):
        list(sandbox.rules(SandboxBoot(paths=(f"{tmp_path}/missing",), scratch="/none")))


@pytest.mark.parametrize("version", [-1, 0, 2])
def test_a_kernel_without_landlock_is_refused(monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    monkeypatch.setattr(sandbox, "_landlock_version", lambda: version)
    with pytest.raises(SandboxUnavailable, match=r"needs Landlock version 3 \(Linux 6.2.*'paths' out of"):
        sandbox._restrict_files(SandboxBoot(paths=(), scratch="/none"))


def test_another_system_than_linux_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SandboxUnavailable, match="needs Linux"):
        sandbox.enter(SandboxBoot(network=True))
    sandbox.enter(SandboxBoot())  # nothing to give up


@pytest.mark.parametrize("given", [None, [], {"net": True}, {"network": 1}, {"paths": "/srv"}, {"paths": [1]}])
def test_a_boot_document_with_a_wrong_sandbox_is_refused(given: object) -> None:
    with pytest.raises(BootInvalid, match="sandbox"):
        Boot(worker="a", pool="a", adapter="a", parent=1, listen_fd=3, shared_page_fd=4, sandbox=given)  # type: ignore[arg-type]
