"""What a broker does when something removes its runtime directory, or parts of it, while it runs."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

from snakepit.pools.adapters.runtime_directory import RuntimeDirectory
from tests.brokers import PATIENCE, broker, eventually


def test_a_broker_restores_what_a_cleaner_removes_and_stops_when_its_directory_is_gone() -> None:
    with broker({"one": {"size": 1}}) as node:
        node.ready("one")
        token = (node.runtime / "token").read_text()
        for name in ("lock", "instance", "token"):
            (node.runtime / name).unlink()
        for name in ("w", "tmp", "lib"):
            shutil.rmtree(node.runtime / name)
        eventually(lambda: all((node.runtime / name).exists() for name in ("lock", "instance", "token")))
        assert (node.runtime / "token").read_text() == token
        os.kill(node.client.call("one", "pid"), signal.SIGKILL)
        assert node.client.call("one", "echo", value=7) == 7, "its successor starts in directories that are made again"
        moved = node.runtime.with_name("moved")
        os.rename(node.runtime, moved)
        assert node.process.wait(PATIENCE) == 1
        assert "was removed or replaced while the broker ran" in node.errors.read_text()


def test_a_broker_whose_directory_was_replaced_leaves_its_successors_files() -> None:
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as home:  # a short path, for the sockets
        first, second = RuntimeDirectory(Path(home) / "run"), RuntimeDirectory(Path(home) / "run")
        first.open()
        shutil.rmtree(first.path)
        second.open()
        assert not first.keep()
        first.close()
        assert (second.path / "token").read_text() == second.token
        second.close()
        assert list(second.path.iterdir()) == []
