"""Rows: the same rules as PoolSpec, kept by the form and by the database; pools of the settings."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import DatabaseError, IntegrityError, connection, transaction

from snakepit.pools.broker.spec import FIELDS, PoolSpec
from snakepit.pools.models import ApiKey, Event, Node, Pool, Worker
from snakepit.pools.models import pool as pool_rows
from snakepit.pools.models.moments import utc_now
from snakepit.pools.models.pool import sync_pools
from snakepit.pools.models.strict_json import find_problem, scrub

pytestmark = pytest.mark.django_db


def test_every_field_of_a_definition_is_a_column() -> None:
    columns = {field.name for field in Pool._meta.get_fields()}
    assert set(FIELDS) <= columns


def test_a_row_has_the_defaults_of_a_spec() -> None:
    row = Pool(name="digits", adapter="digits", size=2)
    assert row.to_spec() == PoolSpec(name="digits", adapter="digits", size=2)


def test_there_is_no_migration_missing() -> None:
    said = io.StringIO()
    call_command("makemigrations", dry_run=True, stdout=said)
    assert said.getvalue() == "No changes detected\n"


WRONG = [
    ("size", 0), ("size", 1001), ("size", None), ("profile", "fork"), ("name", "Digits"), ("name", "-x"),
    ("adapter", "other"), ("threads", 0), ("queue_timeout", -1.0), ("queue_timeout", float("nan")),
    ("queue_timeout", float("inf")), ("ttl", 0.5),
    ("jitter", 1.5), ("max_payload", 1), ("args", ["x"]), ("args", {"not a name": 1}), ("args", {"x": float("nan")}),
    ("args", {"x": "a\0b"}), ("env", {"A=B": "x"}), ("env", {"A": 5}), ("max_unavailable", 9), ("memory_soft_mb", -1),
    ("nodes", "gpu=yes"), ("nodes", ["a b=c"]),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_wrong_value_is_refused_by_its_field(field: str, value: Any) -> None:
    row = Pool(**{"name": "digits", "adapter": "digits", "size": 2, field: value})
    with pytest.raises(ValidationError) as caught:
        row.full_clean()
    assert set(caught.value.message_dict) == {field}


def test_a_replacement_needs_room() -> None:
    with pytest.raises(ValidationError, match="leaves no way to replace a worker"):
        Pool(name="digits", adapter="digits", size=2, max_surge=0).full_clean()


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0},
        {"profile": "fork"},
        {"threads": 999},
        {"ttl": 0},
        {"queue_timeout": -1},
        {"source": "other"},
        {"name": ""},
        {"jitter": 2},
        {"memory_hard_mb": 0},
    ],
)
def test_the_database_refuses_what_the_form_would(change: dict[str, Any]) -> None:
    Pool.objects.create(name="digits", adapter="digits", size=2)
    with pytest.raises(DatabaseError), transaction.atomic():
        Pool.objects.update(**change)


def test_two_pools_of_one_name_are_refused() -> None:
    Pool.objects.create(name="digits", adapter="digits", size=2)
    with pytest.raises(ValidationError, match="already exists"):
        Pool(name="digits", adapter="digits", size=2).full_clean()


def test_each_save_counts_a_revision() -> None:
    row = Pool.objects.create(name="digits", adapter="digits", size=2)
    assert row.revision == 1
    other = Pool.objects.get()
    row.save()
    other.save(update_fields=["size"])
    assert other.revision == 3
    assert Pool.objects.get().revision == 3


def test_a_worker_row_has_a_known_state_and_one_place() -> None:
    node = Node.objects.create(name="node-1", seen_at="2026-01-01T00:00Z")
    row = {"node": node, "worker_id": "digits-1", "pool": "digits", "seen_at": node.seen_at}
    Worker.objects.create(**row, state="ready")
    with pytest.raises(DatabaseError), transaction.atomic():
        Worker.objects.create(**row, state="ready")
    with pytest.raises(DatabaseError), transaction.atomic():
        Worker.objects.update(state="odd")
    with pytest.raises(DatabaseError), transaction.atomic():
        Event.objects.create(at=node.seen_at, kind="x", level="odd")


def test_rows_have_names_that_people_can_read(django_user_model: Any) -> None:
    owner = django_user_model.objects.create(username="ada")
    key, secret = ApiKey.create(name="ci", owner=owner)
    assert str(key) == f"ci ({secret[:16]})"
    assert str(Event(kind="worker.died", worker="digits-1")) == "worker.died digits-1"
    assert (str(Pool(name="digits")), str(Node(name="n")), str(Worker(worker_id="w"))) == ("digits", "n", "w")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scopes", []),
        ("scopes", ["root"]),
        ("scopes", [["run"]]),
        ("scopes", "run"),
        ("pools", "digits"),
        ("pools", [5]),
    ],
)
def test_a_key_with_a_wrong_scope_is_not_made(django_user_model: Any, field: str, value: Any) -> None:
    owner = django_user_model.objects.create(username="ada")
    row = ApiKey(**{"name": "ci", "owner": owner, "scopes": ["run"], field: value})
    row.issue()
    with pytest.raises(ValidationError) as caught:
        row.full_clean()
    assert set(caught.value.message_dict) == {field}


def test_the_tables_have_our_names() -> None:
    names = connection.introspection.table_names()
    assert {"snakepit_pool", "snakepit_node", "snakepit_worker", "snakepit_event", "snakepit_apikey"} <= set(names)


# Pools of the settings.


def pools(settings: Any, **pools: Any) -> None:
    settings.SNAKEPIT = {**settings.SNAKEPIT, "POOLS": pools}


def test_pools_of_the_settings_become_rows(settings: Any) -> None:
    pools(settings, digits={"adapter": "digits", "size": 3, "args": {"x": 1}, "ttl": 60})
    assert sync_pools() == ["digits"]
    row = Pool.objects.get()
    assert (row.source, row.size, row.args, row.ttl, row.profile) == ("settings", 3, {"x": 1}, 60, "process")
    assert row.revision == 1


def test_a_pool_that_another_broker_writes_at_the_same_moment_is_no_error(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*_: object) -> bool:
        monkeypatch.setattr(pool_rows, "_sync", sync)
        raise IntegrityError("duplicate key value violates unique constraint")

    sync = pool_rows._sync
    monkeypatch.setattr(pool_rows, "_sync", too_late)
    pools(settings, digits={"adapter": "digits", "size": 3})
    assert sync_pools() == ["digits"]


def test_a_second_sync_changes_nothing(settings: Any) -> None:
    pools(
        settings, digits={"adapter": "digits", "size": 3, "ttl": 60, "env": {"A": "b"}, "sandbox": {"paths": ("/srv",)}}
    )
    sync_pools()
    assert sync_pools() == []
    assert Pool.objects.get().sandbox == {"paths": ["/srv"]}
    assert Pool.objects.get().revision == 1


def test_a_sync_undoes_what_was_changed_by_hand(settings: Any) -> None:
    pools(settings, digits={"adapter": "digits", "size": 3})
    sync_pools()
    Pool.objects.update(size=9)
    assert sync_pools() == ["digits"]
    assert Pool.objects.get().size == 3


def test_a_pool_that_left_the_settings_is_disabled_and_comes_back(settings: Any) -> None:
    Pool.objects.create(name="mine", adapter="digits", size=1)
    pools(settings, digits={"adapter": "digits", "size": 3}, primes={"adapter": "primes", "size": 1})
    sync_pools()
    pools(settings, primes={"adapter": "primes", "size": 1})
    assert sync_pools() == ["digits"]
    assert dict(Pool.objects.values_list("name", "enabled")) == {"mine": True, "digits": False, "primes": True}
    assert sync_pools() == []
    pools(settings, digits={"adapter": "digits", "size": 3}, primes={"adapter": "primes", "size": 1})
    assert sync_pools() == ["digits"]
    assert Pool.objects.get(name="digits").enabled


def test_a_broker_leaves_the_pools_of_another_nodes_settings_alone(settings: Any) -> None:
    both = {"digits": {"adapter": "digits", "size": 3}, "primes": {"adapter": "primes", "size": 1}}
    pools(settings, **both)
    sync_pools("first")
    pools(settings, primes=both["primes"])
    assert sync_pools("second") == []
    assert dict(Pool.objects.values_list("name", "enabled")) == {"digits": True, "primes": True}
    assert dict(Pool.objects.values_list("name", "owners")) == {"digits": ["first"], "primes": ["first", "second"]}
    assert sync_pools("first") == ["digits"], "its last owner dropped it"
    pools(settings)
    assert sync_pools("first") == []
    assert sync_pools("second") == ["primes"]
    assert not Pool.objects.filter(enabled=True).exists()


def test_a_node_that_is_gone_for_a_day_owns_no_pool(settings: Any) -> None:
    pools(settings, digits={"adapter": "digits", "size": 3})
    sync_pools("first")
    node = Node.objects.create(name="first", seen_at=utc_now() - timedelta(hours=2))
    pools(settings)
    assert sync_pools("second") == []
    Node.objects.filter(pk=node.pk).update(seen_at=utc_now() - timedelta(days=2))
    assert sync_pools("second") == ["digits"]
    pools(settings, digits={"adapter": "digits", "size": 3})
    assert sync_pools("first") == ["digits"], "it has returned, and has not reported yet"
    pools(settings)
    assert sync_pools("second") == [], "it writes its row within seconds"
    assert Pool.objects.get().owners == ["first"]


def test_the_settings_take_over_a_pool_of_the_admin(settings: Any) -> None:
    Pool.objects.create(name="digits", adapter="digits", size=1)
    pools(settings, digits={"adapter": "digits", "size": 3})
    assert sync_pools() == ["digits"]
    assert Pool.objects.get().source == "settings"


# Strict JSON.


def test_a_value_without_end_is_judged_without_recursion() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert find_problem(deep) == "is nested deeper than 64 levels"


def test_what_comes_from_a_worker_is_made_to_fit() -> None:
    assert scrub({1: (float("inf"), {"a\0": b"x"}, None, True)}) == {"1": [None, {"a\ufffd": "b'x'"}, None, True]}
