"""`snakepit up` and sockets: a port or a broker's socket that is taken, and one that is not there."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from snakepit.pools.cli.output import Problem
from snakepit.pools.cli.transport import answers, listens
from tests.unit.cli.test_up import prepared


def test_a_busy_port_is_refused_with_the_way_out(tmp_path: Path) -> None:
    up = prepared(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        up.port = taken.getsockname()[1]
        with pytest.raises(Problem, match=f"PORT={up.port % 65535 + 1}"):
            up._check_free()
        up.web = False
        up._check_free()


def test_a_broker_that_runs_already_is_noticed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(tmp_path / "broker.sock"))
        taken.listen()
        with pytest.raises(Problem, match="broker already runs"):
            prepared(tmp_path)._check_free()


def test_nothing_answers_on_a_socket_that_is_not_there(tmp_path: Path) -> None:
    assert not answers(tmp_path / "none.sock")
    assert not listens(tmp_path / "none.sock")
