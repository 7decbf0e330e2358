"""What a worker finds in its process: the directory that it runs in, and the modules that it can import."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from snakepit.pools.adapters.grpc.link import GrpcLinker
from snakepit.pools.adapters.processes.free_memory import MemoryShort
from snakepit.pools.adapters.processes.launcher import LaunchSettings, ProcessLauncher
from snakepit.pools.broker.ports import Assignment, LaunchOrder
from snakepit.pools.broker.spec import PoolSpec
from tests.process.contract.test_ports import ReportLog

PATIENCE = 60.0  # a bound for a machine under load, never a wait
ADAPTER = """\
import os, sys
from snakepit.workers import Adapter, command

class Where(Adapter):
    @command
    def look(self) -> dict:
        return {"module": __file__, "directory": os.getcwd(), "path": sys.path[:4]}
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="snakepit-", dir="/tmp") as directory:
        yield Path(directory)


def bundle(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bundled.py", ADAPTER)
    return path


async def look(home: Path, *path: Path | str, module: str = "bundled") -> dict[str, Any]:
    """Start a worker with this WORKER_PATH and ask it where it is."""
    launcher = ProcessLauncher(LaunchSettings(home, "1" * 32, tuple(map(str, path))))
    exited, reports = asyncio.Event(), ReportLog()
    order = LaunchOrder("p-1", f"{module}.Where", PoolSpec(name="p", adapter="where"))
    process = await launcher.launch(order, lambda exit: exited.set())
    try:
        link = GrpcLinker().link(process.socket_path, reports)
        await reports.until("hello")
        link.assign(Assignment(1, "c-1", "look", b"{}", {}, PATIENCE, 0, 2**20))
        _, payload, _ = await reports.until("result")
        link.close()
        found: dict[str, Any] = json.loads(payload.data)
        return found
    finally:
        process.kill()
        await asyncio.wait_for(exited.wait(), PATIENCE)
        await launcher.close()


async def test_a_zip_archive_may_come_first_in_the_worker_path(home: Path, tmp_path: Path) -> None:
    archive = bundle(tmp_path / "bundle.zip")
    found = await look(home, archive)
    assert found["module"] == str(archive / "bundled.py")
    assert found["directory"] == os.getcwd()


async def test_a_worker_runs_in_the_first_directory_of_its_path_that_exists(home: Path, tmp_path: Path) -> None:
    archive = bundle(tmp_path / "bundle.zip")
    code = tmp_path / "code"
    code.mkdir()
    # The order of the path decides what is imported: the working directory must not come first.
    (code / "bundled.py").write_text("raise ImportError('the archive comes first')")
    found = await look(home, tmp_path / "not there yet", archive, code)
    assert found["module"] == str(archive / "bundled.py")
    assert found["directory"] == str(code)
    assert str(code) not in found["path"][:3]


async def test_relative_entries_of_the_worker_path_start_where_the_broker_runs(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle(tmp_path / "bundle.zip")
    (tmp_path / "code").mkdir()
    monkeypatch.chdir(tmp_path)
    found = await look(home, "code", "bundle.zip")
    assert found["module"] == str(tmp_path / "bundle.zip" / "bundled.py")
    assert found["directory"] == str(tmp_path / "code")


async def test_no_process_starts_while_almost_no_memory_is_free(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**20, total=2**30))
    launcher = ProcessLauncher(LaunchSettings(home, "1" * 32))
    order = LaunchOrder("p-1", "bundled.Where", PoolSpec(name="p", adapter="where"))
    with pytest.raises(MemoryShort, match="only 1 MiB of the 1,024 MiB of the machine are free"):
        await launcher.launch(order, lambda exit: None)
    await launcher.close()
