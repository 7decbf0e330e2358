"""`snakepit up` and sockets: a port or a broker's socket that is taken, and one that is not there."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from snakepit.pools.cli.output import Problem
from snakepit.pools.cli.transport import Own, answers, choose, listens
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


@pytest.mark.parametrize("url", ["redis+socket:///nowhere/valkey.sock", "redis://127.0.0.1:1/0", "amqp://127.0.0.1:1"])
def test_a_server_of_the_project_that_does_not_answer_is_replaced_with_a_note(tmp_path: Path, url: str) -> None:
    own = Own(url, "shop.celery")
    found = choose({}, tmp_path, tmp_path, own, which=lambda name: None, bundled=lambda: "/bundled")
    assert found.environment == {"SNAKEPIT_CELERY_URL": f"redis+socket://{found.socket}"}
    assert found.note.startswith(f"{url} (shop.celery) does not answer: ")


def test_a_server_of_the_project_that_listens_is_used(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        own = Own(f"redis://127.0.0.1:{server.getsockname()[1]}/0", "shop.celery")
        found = choose({}, tmp_path, tmp_path, own, which=lambda name: None, bundled=lambda: "/bundled")
    assert (found.url, found.environment, found.note) == (own.url, {}, "")
