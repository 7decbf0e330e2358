"""Scale, pause, resume and recycle through REST, the admin and the command line: rows, orders, who and why."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import OperationalError
from django.test import Client
from django.urls import reverse

from snakepit.pools import conf
from snakepit.pools.broker.errors import DefinitionInvalid, PoolUnknown
from snakepit.pools.broker.status import BrokerStatus, as_json
from snakepit.pools.cli import dump as dump_command
from snakepit.pools.cli import operate
from snakepit.pools.cli.main import run
from snakepit.pools.diagnostics.advice import Capacity
from snakepit.pools.models import Audit, Node, Pool, Worker
from snakepit.pools.models.pool import sync_pools
from snakepit.pools.operations import orders
from snakepit.pools.operations.orders import Order
from tests import statuses
from tests.process.integration.conftest import ADAPTERS
from tests.process.integration.fakes import FakeClient, unreachable

pytestmark = pytest.mark.django_db
ADA = Order("user ada", "more load", "ada")
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def pool(db: None) -> Pool:
    return Pool.objects.create(name="digits", adapter="digits", size=2, max_surge=0, max_unavailable=2)


@pytest.fixture
def of_settings(db: None, settings: Any) -> Callable[..., None]:
    """Defines the pool `digits` in the settings and starts a broker, as far as the rows see it."""

    def define(**fields: Any) -> None:
        pools = {"digits": {"adapter": "digits", "size": 2, **fields}}
        settings.SNAKEPIT = {"ADAPTERS": ADAPTERS, "NODE_NAME": "node-1", "POOLS": pools}
        conf.forget()
        sync_pools()

    return define


# The rows


def test_a_change_is_saved_with_its_user_and_applied_by_the_broker(
    pool: Pool, broker: FakeClient, django_user_model: Any
) -> None:
    ada = django_user_model.objects.create_user("ada")
    done = orders.scale(broker, "digits", 4, ADA)
    assert (done.size, done.changed, done.in_force, done.note) == (4, True, True, "")
    pool.refresh_from_db()
    assert (pool.size, pool.updated_by, pool.revision) == (4, ada, 2)
    assert broker.orders == [("digits", "scale 2 to 4", "user ada", "more load")]


def test_an_order_without_a_change_is_applied_all_the_same(pool: Pool, broker: FakeClient) -> None:
    assert orders.resume(broker, "digits", ADA).changed is False
    pool.refresh_from_db()
    assert pool.revision == 1
    assert broker.orders == [("digits", "resume", "user ada", "more load")]


def test_a_broker_that_is_away_does_not_undo_the_change(pool: Pool, broker: FakeClient) -> None:
    broker.error = unreachable()
    done = orders.pause(broker, "digits", ADA)
    assert (done.paused, done.changed, done.in_force) == (True, True, False)
    assert done.note.startswith("Saved, but not in force yet: No broker answers at")
    assert Pool.objects.get().paused


def test_a_size_that_the_spec_refuses_is_refused_by_name(pool: Pool, broker: FakeClient) -> None:
    for size, field in [(0, "size"), (10**30, "size"), (1, "max_unavailable")]:
        with pytest.raises(DefinitionInvalid) as caught:
            orders.scale(broker, "digits", size, ADA)
        assert set(caught.value.details["fields"]) == {field}
    with pytest.raises(PoolUnknown):
        orders.pause(broker, "dig\0its", ADA)
    assert Pool.objects.get().size == 2
    assert broker.orders == []


def test_an_order_for_a_disabled_pool_notes_that_it_is_disabled(pool: Pool, broker: FakeClient) -> None:
    Pool.objects.update(enabled=False)
    done = orders.scale(broker, "digits", 3, ADA)
    assert (done.in_force, done.note) == (
        False, "The pool is disabled: it has no workers and refuses calls."
    )  # fmt: skip


def test_the_size_of_the_settings_holds_again_when_a_broker_starts(
    of_settings: Callable[..., None], broker: FakeClient
) -> None:
    of_settings()
    note = orders.scale(broker, "digits", 5, ADA).note
    assert note.startswith("The settings (size: 2) apply again when the broker restarts")
    assert 'SNAKEPIT["POOLS"]["digits"]' in note
    assert Pool.objects.get().size == 5
    of_settings()
    assert Pool.objects.get().size == 2
    assert orders.scale(broker, "digits", 2, ADA).note == ""


def test_a_process_with_other_settings_gives_a_general_note(
    of_settings: Callable[..., None], broker: FakeClient, settings: Any
) -> None:
    of_settings()
    settings.SNAKEPIT = {"ADAPTERS": ADAPTERS, "NODE_NAME": "node-1"}
    conf.forget()
    note = orders.scale(broker, "digits", 5, ADA).note
    assert note.startswith("The broker's settings define this pool and apply again")
    assert orders.pause(broker, "digits", ADA).note == ""


def test_a_paused_pool_of_the_settings_stays_paused_when_a_broker_starts(
    of_settings: Callable[..., None], broker: FakeClient
) -> None:
    of_settings()
    assert orders.pause(broker, "digits", ADA).note == ""
    of_settings(size=3)
    assert (Pool.objects.get().paused, Pool.objects.get().size) == (True, 3)
    orders.resume(broker, "digits", ADA)
    of_settings()
    assert Pool.objects.get().paused is False


def test_settings_that_say_paused_pause_again(of_settings: Callable[..., None], broker: FakeClient) -> None:
    of_settings(paused=True)
    assert orders.resume(broker, "digits", ADA).note.startswith("The settings (paused: True) apply again")
    of_settings(paused=True)
    assert Pool.objects.get().paused is True


# REST


@pytest.fixture
def post(client: Client, broker: FakeClient, make_key: Callable[..., str]) -> Callable[..., Any]:
    def ask(path: str, body: Any = None, *scopes: str) -> Any:
        headers = {"Authorization": make_key(*(scopes or ("operate",)))}
        text = body if isinstance(body, bytes) else json.dumps(body or {})
        return client.post(f"/api/pools/digits/{path}", text, content_type="application/json", headers=headers)

    return ask


def test_rest_scales_pauses_and_resumes_with_actor_and_reason(pool: Pool, post: Any, broker: FakeClient) -> None:
    answer = post("scale", {"size": 4, "reason": "more load"})
    assert answer.status_code == 200
    assert answer.json() == {
        "pool": "digits", "size": 4, "paused": False, "changed": True, "in_force": True, "note": "",
    }  # fmt: skip
    assert post("pause", {"reason": "bad model"}).json()["paused"] is True
    assert post("resume", b"").json()["paused"] is False
    assert [(order[1], order[3]) for order in broker.orders] == [
        ("scale 2 to 4", "more load"), ("pause", "bad model"), ("resume", ""),
    ]  # fmt: skip
    assert all(order[2].startswith("key test (snk_") for order in broker.orders)
    assert str(Pool.objects.get().updated_by) == "ada"


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("scale", {}, 400, "size"),
        ("scale", {"size": "4"}, 400, "size"),
        ("scale", {"size": True}, 400, "size"),
        ("scale", {"size": 2.5}, 400, "size"),
        ("scale", {"size": 4, "resaon": "x"}, 400, "resaon"),
        ("scale", {"size": 0}, 422, "size: 0 is outside 1 to 1000"),
        ("scale", {"size": 10**30}, 422, "is outside 1 to 1000"),
        ("pause", {"reason": "x" * 201}, 400, "reason"),
        ("resume", b"[]", 400, "must be a JSON object"),
    ],
)
def test_a_wrong_order_is_refused_by_name(
    pool: Pool, post: Any, broker: FakeClient, path: str, body: Any, status: int, words: str
) -> None:
    answer = post(path, body)
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]
    assert broker.orders == []


@pytest.mark.parametrize("path", ["scale", "pause", "resume", "recycle"])
def test_orders_need_the_scope_operate_and_a_pool(post: Any, broker: FakeClient, pool: Pool, path: str) -> None:
    refused = post(path, {"size": 3}, "view", "run")
    assert (refused.status_code, refused.json()["error"]["details"]["scope"]) == (403, "operate")
    Pool.objects.all().delete()
    if path != "recycle":  # that one asks the broker alone
        assert post(path, {"size": 3} if path == "scale" else {}).json()["error"]["code"] == "pool_unknown"
    assert broker.orders == []


def test_rest_reports_an_unreachable_broker(pool: Pool, post: Any, broker: FakeClient) -> None:
    broker.error = unreachable()
    answer = post("pause")
    assert (answer.status_code, answer.json()["in_force"]) == (200, False)
    assert "No broker answers" in answer.json()["note"]


def test_the_plan_needs_the_scope_view(client: Client, broker: FakeClient, make_key: Any) -> None:
    plan = client.get("/api/pools/digits/plan", headers={"Authorization": make_key("view")})
    assert plan.json() == as_json(broker.plan("digits"))
    one = client.get("/api/pools/digits/plan?worker=digits-2", headers={"Authorization": make_key("view")})
    assert [worker["id"] for worker in one.json()["workers"]] == ["digits-2"]
    refused = client.get("/api/pools/digits/plan", headers={"Authorization": make_key("operate")})
    assert refused.status_code == 403
    other = make_key("view", pools=["primes"])
    assert client.get("/api/pools/digits/plan", headers={"Authorization": other}).status_code == 403


# The admin


def act(client: Client, model: str, action: str, row: Any, **more: str) -> str:
    data = {"action": action, "_selected_action": [row.pk], **more}
    page = client.post(reverse(f"admin:snakepit_pools_{model}_changelist"), data, follow=True)
    return page.content.decode()


def test_the_admin_pauses_and_resumes_and_logs_it(
    admin_client: Client, admin_user: Any, pool: Pool, broker: FakeClient
) -> None:
    assert ": Paused." in act(admin_client, "pool", "pause", pool)
    pool.refresh_from_db()
    assert (pool.paused, pool.updated_by) == (True, admin_user)
    assert ": Resumed." in act(admin_client, "pool", "resume", pool)
    pool.refresh_from_db()
    assert pool.paused is False
    assert [order[:3] for order in broker.orders] == [
        ("digits", "pause", "user admin"), ("digits", "resume", "user admin"),
    ]  # fmt: skip
    texts = [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")]
    assert texts == ["Paused.", "Resumed."]


def test_the_admin_reports_that_a_change_is_not_in_force_without_a_broker(
    admin_client: Client, pool: Pool, broker: FakeClient
) -> None:
    broker.error = unreachable()
    assert "not in force yet: No broker answers" in act(admin_client, "pool", "pause", pool)
    assert Pool.objects.get().paused


def test_a_recycle_is_asked_for_with_what_it_would_do(admin_client: Client, pool: Pool, broker: FakeClient) -> None:
    page = act(admin_client, "pool", "recycle", pool)
    assert "Recycle these workers?" in page
    assert "<td>2</td><td>1</td><td>1</td>" in " ".join(page.split()).replace("> <", "><")
    assert broker.orders == []
    node = Node.objects.create(name="n", seen_at="2026-01-01T00:00Z")
    worker = Worker.objects.create(
        node=node, worker_id="digits-2", pool="digits", state="ready", seen_at="2026-01-01T00:00Z"
    )
    page = act(admin_client, "worker", "recycle", worker)
    assert "<td>1</td><td>0</td><td>1</td>" in " ".join(page.split()).replace("> <", "><")
    assert "Recycling 2 workers" in act(admin_client, "worker", "recycle", worker, confirmed="yes", reason="odd")
    assert broker.orders == [("digits", "digits-2", "user admin", "odd")]


def test_a_scale_in_the_admin_asks_for_the_size_and_why(admin_client: Client, pool: Pool, broker: FakeClient) -> None:
    assert "Scale these pools?" in act(admin_client, "pool", "scale", pool)
    for size in ("0", "many", ""):  # asked again, with what is wrong
        assert "errorlist" in act(admin_client, "pool", "scale", pool, confirmed="yes", size=size)
    assert (broker.orders, Pool.objects.get().size) == ([], 2)
    done = act(admin_client, "pool", "scale", pool, confirmed="yes", size="5", reason="monday")
    assert "Scaled from 2 to 5." in done
    assert Pool.objects.get().size == 5
    assert broker.orders == [("digits", "scale 2 to 5", "user admin", "monday")]
    assert "monday" in LogEntry.objects.get().change_message
    refused = act(admin_client, "pool", "scale", pool, confirmed="yes", size="1000000", reason="typo")
    assert "size" in refused
    assert Pool.objects.get().size == 5


@pytest.mark.parametrize("action", ["pause", "resume", "scale"])
def test_the_admin_asks_for_the_permission_to_operate(
    client: Client, django_user_model: Any, pool: Pool, broker: FakeClient, action: str
) -> None:
    user = django_user_model.objects.create_user("grace", is_staff=True)
    names = ("view_pool", "change_pool")
    user.user_permissions.add(*Permission.objects.filter(codename__in=names))
    client.force_login(user)
    act(client, "pool", action, pool)
    assert broker.orders == []


# More workers than the memory holds.


def test_more_workers_than_the_settings_allow_are_refused(pool: Pool, post: Any, settings: Any) -> None:
    refused = post("scale", {"size": 257})
    assert refused.status_code == 422
    reason = refused.json()["error"]["details"]["fields"]["size"]
    assert reason.startswith('257 is more than SNAKEPIT["MAX_POOL_SIZE"], which is 256; raise it')
    settings.SNAKEPIT = settings.SNAKEPIT | {"MAX_POOL_SIZE": 300}
    assert post("scale", {"size": 257}).status_code == 200
    settings.SNAKEPIT = settings.SNAKEPIT | {"MAX_POOL_SIZE": 200}
    assert 'SNAKEPIT["MAX_POOL_SIZE"], which is 200' in Pool.objects.get(name="digits").definition_problem()


@pytest.fixture
def small(pool: Pool, broker: FakeClient, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """One ready worker of 40 MiB on a machine with 400 MiB free: it holds eleven."""
    settings.SNAKEPIT = settings.SNAKEPIT | {"MAX_POOL_SIZE": 1000}
    room = "snakepit.pools.diagnostics.scale_room.room_here"
    monkeypatch.setattr(room, lambda *_: Capacity(cores=2.0, free_mb=400.0))


HOLDS = "holds about 11 workers of digits (40 MiB each, of 1 measured; 400 MiB are free)."


def test_rest_warns_of_more_workers_than_the_memory_holds(small: None, post: Any, broker: FakeClient) -> None:
    answer = post("scale", {"size": 999}).json()
    assert (answer["size"], answer["in_force"]) == (999, True)
    assert HOLDS in answer["note"]
    assert "999 do not fit" in answer["note"]
    assert post("scale", {"size": 11}).json()["note"] == ""
    broker.change_pool(size=999)
    assert post("scale", {"size": 500}).json()["note"] == "", "fewer than now are no new load"


def test_admin_and_dashboard_warn_of_more_workers_than_the_memory_holds(
    small: None, pool: Pool, admin_client: Client, broker: FakeClient
) -> None:
    done = act(admin_client, "pool", "scale", pool, confirmed="yes", size="999", reason="typo")
    assert HOLDS in done
    assert "999 do not fit" in done
    assert HOLDS in admin_client.get("/pools/digits/scale/").content.decode()
    ordered = admin_client.post("/pools/digits/scale/", {"size": "998"}, follow=True).content.decode()
    assert "998 do not fit" in ordered


def test_before_the_first_sweep_the_memory_of_a_worker_is_read(small: None, post: Any, broker: FakeClient) -> None:
    broker.change_worker(memory_mb=-1.0, pid=os.getpid())
    note = post("scale", {"size": 999}).json()["note"]
    assert "of 1 measured; 400 MiB are free" in note
    broker.change_worker(pid=2**31 - 1)  # no process has this number
    assert post("scale", {"size": 1000}).json()["note"] == ""


def test_the_shell_asks_before_more_workers_than_the_memory_holds(
    small: None, shell: FakeClient, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["scale", "digits", "999"]) == 1
    out, err = capsys.readouterr()
    assert (out, HOLDS in err, "add --yes" in err) == ("", True, True)
    assert run(["scale", "digits", "999", "--json"]) == 1
    assert "add --yes" in capsys.readouterr().err
    assert Pool.objects.get().size == 2
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert run(["scale", "digits", "999"]) != 0
    out, err = capsys.readouterr()
    assert (out.strip(), HOLDS in err, "Scale to 999?" in err) == ("", True, True)
    assert shell.orders == []
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert run(["scale", "digits", "999"]) == 0
    capsys.readouterr()
    assert run(["scale", "digits", "998", "--yes", "--json"]) == 0
    assert HOLDS in json.loads(capsys.readouterr().out)["note"]
    assert run(["scale", "digits", "5"]) == 0
    assert [order[1] for order in shell.orders] == ["scale 2 to 999", "scale 999 to 998", "scale 998 to 5"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# The command line


@pytest.fixture
def shell(broker: FakeClient, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    monkeypatch.setattr(operate, "connect", lambda address: broker)
    monkeypatch.setattr(operate, "project_client", lambda: broker)
    monkeypatch.setattr(operate, "name_actor", lambda: "shell user ada")
    monkeypatch.setattr(operate, "POLL", 0.01)
    return broker


def test_the_shell_scales_pauses_and_resumes(pool: Pool, shell: FakeClient, capsys: Captured) -> None:
    assert run(["scale", "digits", "3", "--reason", "more load"]) == 0
    assert capsys.readouterr() == ("digits: 3 workers, taking calls, in force\n", "")
    assert run(["pause", "digits"]) == 0
    assert run(["pause", "digits"]) == 0
    assert run(["resume", "digits", "--json"]) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "digits: 3 workers, paused, in force"
    assert second == "digits: 3 workers, paused (it was so before), in force"
    assert json.loads(third) == {
        "pool": "digits", "size": 3, "paused": False, "changed": True, "in_force": True, "note": "",
    }  # fmt: skip
    assert shell.orders[0] == ("digits", "scale 2 to 3", "shell user ada", "more load")


def test_without_a_broker_the_shell_changes_the_row_and_reports_it(
    pool: Pool, shell: FakeClient, capsys: Captured
) -> None:
    shell.error = unreachable()
    assert run(["scale", "digits", "3"]) == 0
    out, err = capsys.readouterr()
    assert out == "digits: 3 workers, taking calls\n"
    assert "not in force yet: No broker answers" in err
    for words in (["recycle", "digits"], ["recycle", "digits", "--preview"], ["drain", "digits"]):
        assert run(words) == 3
    assert Pool.objects.get().paused is False


def test_a_broken_database_is_a_problem_and_no_traceback(
    pool: Pool, shell: FakeClient, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise OperationalError("no such table")

    monkeypatch.setattr(orders, "_save", away)
    assert run(["pause", "digits"]) == 1
    assert "is it migrated?" in capsys.readouterr().err


def test_the_shell_recycles_pools_and_workers(shell: FakeClient, capsys: Captured) -> None:
    assert run(["recycle", "digits", "--reason", "release 42"]) == 0
    assert "2 workers are to be replaced" in capsys.readouterr().out
    assert run(["recycle", "digits", "--worker", "digits-1"]) == 0
    assert run(["recycle", "digits-1"]) == 0
    assert run(["drain", "digits-ab12-7", "--json"]) == 0  # the broker reports that the worker is gone
    assert [order[:2] for order in shell.orders] == [
        ("digits", ""), ("digits", "digits-1"), ("digits", "digits-1"), ("digits", "digits-ab12-7"),
    ]  # fmt: skip
    assert shell.orders[0][2:] == ("shell user ada", "release 42")
    assert run(["recycle", "digits-1", "--worker", "digits-2"]) == 2
    assert run(["recycle", "digits", "--reason", "x" * 201]) == 2
    assert len(shell.orders) == 4


def test_the_preview_of_the_shell_orders_nothing(shell: FakeClient, capsys: Captured) -> None:
    assert run(["recycle", "digits", "--preview"]) == 0
    out = capsys.readouterr().out
    assert (
        "digits: 2 would be replaced, 1 of them busy; 1 at a time "
        "(max_surge 1, max_unavailable 0, a start takes 2.0 s)." in out
    )
    assert "digits-2" in out
    assert "48 s" in out
    assert run(["recycle", "digits", "--preview", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == as_json(shell.plan("digits"))
    assert shell.orders == []


def test_drain_waits_until_the_pool_is_empty_and_reports_progress(
    pool: Pool, shell: FakeClient, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [3, 3, 2, 1, 0]

    def status(name: str = "", timeout: float = 10.0) -> BrokerStatus:
        running = left.pop(0)
        return statuses.status([statuses.pool(name, waiting=running // 2)], [statuses.worker("digits-1", load=running)])

    monkeypatch.setattr(shell, "status", status)
    assert run(["drain", "digits", "--reason", "release"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("digits: empty and paused")
    assert err.splitlines() == [
        "digits: 3 running, 1 waiting", "digits: 2 running, 1 waiting", "digits: 1 running, 0 waiting",
    ]  # fmt: skip
    assert Pool.objects.get().paused
    assert shell.orders == [("digits", "pause", "shell user ada", "release")]


def test_drain_gives_up_after_its_time_and_leaves_the_pool_paused(
    pool: Pool, shell: FakeClient, capsys: Captured
) -> None:
    assert run(["drain", "digits", "--timeout", "nan"]) == 2
    assert run(["drain", "digits", "--timeout", "0", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["drained"] is False
    assert "1 calls run and 3 wait; it stays paused" in err
    assert Pool.objects.get().paused


# Stacks


def dump(client: Client, worker: str, key: str, body: bytes = b"") -> Any:
    headers = {"Authorization": key}
    return client.post(f"/api/workers/{worker}/dump", body, content_type="application/json", headers=headers)


def test_a_dump_has_actor_and_reason(client: Client, broker: FakeClient, make_key: Any) -> None:
    response = dump(client, "digits-1", make_key("operate"), b'{"reason": "it hangs"}')
    assert response.status_code == 200
    assert response.json()["threads"][0]["frames"] == [{"file": "digits.py", "line": 12, "function": "classify"}]
    ((worker, what, actor, reason),) = broker.orders
    assert (worker, what, reason) == ("digits-1", "dump", "it hangs")
    assert actor.startswith("key ")


def test_a_kill_has_actor_and_reason(client: Client, broker: FakeClient, make_key: Any) -> None:
    key = make_key("operate")
    for worker, authorization, status in (
        ("digits-9", key, 404), ("digits-1", make_key("view"), 403), ("digits-1", key, 200),
    ):  # fmt: skip
        url = f"/api/workers/{worker}/kill"
        answer = client.post(url, b'{"reason": "stuck"}', "application/json", headers={"Authorization": authorization})
        assert answer.status_code == status
    ((worker, what, _, reason),) = broker.orders
    assert (worker, what, reason) == ("digits-1", "kill", "stuck")
    assert Audit.objects.get(action="kill", outcome="done").target == "digits-1"


def test_the_shell_kills_a_worker(shell: FakeClient, capsys: Captured) -> None:
    assert run(["kill", "digits-1", "--reason", "stuck"]) == 0
    assert capsys.readouterr().out == "digits-1: killed\n"
    assert shell.orders == [("digits-1", "kill", "shell user ada", "stuck")]


def test_a_dump_of_an_unknown_worker_or_without_permission_is_refused(
    client: Client, broker: FakeClient, make_key: Any
) -> None:
    assert dump(client, "digits-9", make_key("operate")).status_code == 404
    assert dump(client, "digits-1", make_key("view")).status_code == 403
    assert dump(client, "digits-1", make_key("operate", pools=["primes"])).status_code == 403
    assert broker.orders == []


@pytest.mark.usefixtures("pool")
def test_the_shell_shows_stacks_and_records_the_actor(
    shell: FakeClient, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dump_command, "connect", lambda address: shell)
    monkeypatch.setattr(dump_command, "project_client", lambda: shell)
    monkeypatch.setattr(dump_command, "name_actor", lambda: "shell user ada")
    assert run(["dump", "digits-1", "--reason", "it hangs"]) == 0
    out = capsys.readouterr().out
    assert "worker digits-1 of pool digits, pid 7, at " in out
    assert "holds classify (c-1) for 1.5 s, 58.5 s are left\n" in out
    assert "thread 7 (main, python): runs, 2.50 s of CPU\n  digits.py:12 in classify\n" in out
    row = Audit.objects.get()
    assert (row.action, row.pool, row.target, row.surface) == ("dump", "digits", "digits-1", "shell")
    assert run(["dump", "digits-1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["threads"][0]["frames"][0]["function"] == "classify"
    assert run(["dump", "digits-1", "--reason", "x" * 201]) == 2
    shell.error = unreachable()
    assert run(["dump", "digits-1"]) == 3
