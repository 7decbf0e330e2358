"""`snakepit keys`: a key from its creation to its end, as a new user types it."""

from __future__ import annotations

import json

import pytest
from django.contrib.auth import get_user_model

from snakepit.pools.cli.main import run
from snakepit.pools.models import ApiKey

Captured = pytest.CaptureFixture[str]
pytestmark = pytest.mark.django_db


@pytest.fixture
def ada() -> str:
    return get_user_model().objects.create_superuser("ada").get_username()


def test_a_secret_is_printed_once_and_alone(ada: str, capsys: Captured) -> None:
    assert (
        run(["keys", "create", "night job", "--owner", ada, "--scope", "run", "--pool", "digits", "--days", "2"]) == 0
    )
    printed = capsys.readouterr()
    key = ApiKey.find(printed.out.strip())
    assert key is not None
    assert (key.name, key.scopes, key.pools) == ("night job", ["run"], ["digits"])
    assert key.expires_at is not None
    assert "cannot be shown again" in printed.err
    assert run(["keys", "list"]) == 0
    shown = capsys.readouterr().out
    assert f"snk_{key.prefix}" in shown
    assert printed.out.strip() not in shown


def test_a_key_is_rotated_and_revoked_by_its_prefix(ada: str, capsys: Captured) -> None:
    run(["keys", "create", "robot", "--owner", ada, "--json"])
    made = json.loads(capsys.readouterr().out)
    assert run(["keys", "rotate", made["prefix"], "--json"]) == 0
    successor = json.loads(capsys.readouterr().out)
    assert ApiKey.find(made["secret"])
    assert ApiKey.find(successor["secret"])
    assert run(["keys", "revoke", made["prefix"]]) == 0
    assert "is revoked" in capsys.readouterr().out
    assert ApiKey.find(made["secret"]) is None
    assert run(["keys", "list", "--json"]) == 0
    assert {one["prefix"]: one["usable"] for one in json.loads(capsys.readouterr().out)} == {
        made["prefix"]: False, successor["prefix"]: True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["keys", "create", "x", "--owner", "bob"], 2, "--owner: there is no user 'bob'"),
        (["keys", "create", "x", "--owner", "ada", "--scope", "fly"], 2, "scopes: 'fly' is not a scope"),
        (["keys", "revoke", "snk_000000000000"], 1, "No key has the prefix snk_000000000000; see: snakepit keys list"),
    ],
)
def test_a_mistake_is_named(ada: str, capsys: Captured, argv: list[str], code: int, says: str) -> None:
    assert run(argv) == code
    assert says in capsys.readouterr().err
    assert not ApiKey.objects.exists()
