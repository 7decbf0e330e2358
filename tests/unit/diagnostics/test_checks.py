"""What the doctor makes of facts: one fault at a time in a world that is otherwise in order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from snakepit.pools.broker.node_status import ListenerStatus
from snakepit.pools.broker.status import NOT_READ, BrokerStatus
from snakepit.pools.diagnostics import facts as known
from snakepit.pools.diagnostics.facts import CertificateFacts, SystemFacts, Unknown
from snakepit.pools.diagnostics.finding import Finding, FindingStatus, report_of
from snakepit.pools.diagnostics.local_checks import CHECKS, _running
from tests.statuses import pool, status, template

NODE = {"name": "n1", "pid": 7, "address": "/run/s/broker.sock", "version": "1.0", "uptime": 900.0}
RUNNING = pool("digits", ready=2, size=2)
PYTHON = known.InterpreterFacts(path="/usr/bin/python3", about="3.14t: CPython 3.14.0")
ADAPTER = known.AdapterFacts(path="shop.Digits", thread_safe=True, commands=3)
POOL = known.PoolFacts(
    name="digits", profile="process", size=2, slots=1, queue="snakepit.digits", enabled=True, interpreter=PYTHON,
    adapter=ADAPTER,
)  # fmt: skip
MACHINE = known.MachineFacts(
    of="the broker", cores=4, open_files=4096, processes=10_000, processes_now=100, memory_total_mb=8000.0,
    memory_available_mb=6000.0,
)  # fmt: skip
ROOM = known.DiskFacts(path="/run", free=50 * 2**30, total=100 * 2**30, inodes_free=10**6, inodes_total=10**7)
RUNTIME = known.RuntimeFacts(
    user=1000,
    directory=known.FileFacts(path="/run/s", mode=0o700, owner=1000, kind="directory"),
    socket=known.FileFacts(path="/run/s/broker.sock", mode=0o600, owner=1000, kind="socket"),
    token=known.FileFacts(path="/run/s/token", mode=0o600, owner=1000, kind="file"),
    longest_socket=20,
    rooms=(ROOM,),
)
OWN = known.NodeRowFacts(name="n1", address="/run/s/broker.sock", pid=7, stopped=False, silent=1.0)
DATABASE = known.DatabaseFacts(
    vendor="postgresql", name="shop", version="17.1", unapplied=(), drift=0.01, connections=5, most_connections=100,
    nodes=(OWN,), keys=(known.ApiKeyFacts(name="robot", days_left=None),),
)  # fmt: skip
TRANSPORT = known.TransportFacts(
    url="redis://cache:6379/0", scheme="redis", drift=-0.02, persistent=True,
    workers={"celery@n1": frozenset({"celery", "snakepit.digits"})}, worker_pools={"celery@n1": "threads"},
)  # fmt: skip
CELERY = known.CeleryFacts(app="shop", argument="shop", line="configure_celery(app)")
FAST_PATH = known.FastPathFacts(versions="grpclib 0.4.9, h2 4.3.0", switched_on=True)
SETTINGS = known.SettingsFacts(
    problems=(), debug=False, allowed_hosts=("shop.example",), secret_key_length=60, secret_key_variety=40,
    secret_key_insecure=False, release="1.0", sweep_interval=15.0,
)  # fmt: skip
SOUND = SystemFacts(
    settings=SETTINGS, runtime=RUNTIME, machine=MACHINE, broker=status([RUNNING], **NODE),
    address="/run/s/broker.sock", database=DATABASE, transport=TRANSPORT, celery=CELERY, fast_path=FAST_PATH,
    pools=(POOL,),
)  # fmt: skip


NOW = SOUND.broker.node.started_at + SOUND.broker.node.uptime if isinstance(SOUND.broker, BrokerStatus) else 0.0
LISTENER = ListenerStatus(
    address="0.0.0.0:7443", tls="mutual", certificate_expires=NOW + 90 * 86_400, problem="", connections=3, accepted=9,
    refused={"certificate_expired": 1},
)  # fmt: skip


def judge(facts: SystemFacts) -> list[Finding]:
    return [finding for check in CHECKS for finding in check(facts)]


def worst(facts: SystemFacts) -> list[Finding]:
    return [one for one in judge(facts) if one.status in (FindingStatus.WARNING, FindingStatus.PROBLEM)]


def broker(pool: dict[str, Any] | None = None, **node: Any) -> BrokerStatus:
    return status([replace(RUNNING, **(pool or {}))], **{**NODE, **node})


def test_a_revocation_list_of_a_short_life_is_no_warning_while_it_is_fresh() -> None:
    fresh = replace(LISTENER, lists_issued=NOW - 3600, lists_expire=NOW + 2 * 3600)
    assert worst(replace(SOUND, broker=broker(listeners=(fresh,)))) == []


@pytest.mark.parametrize(("life", "left"), [(1.0, 0.4), (90.0, 31.0), (90.0, 15.0), (3650.0, 15.0)])
def test_a_certificate_of_any_life_is_no_warning_while_its_renewal_is_not_due(life: float, left: float) -> None:
    issued, expires = NOW - (life - left) * 86_400, NOW + left * 86_400
    fresh = replace(
        LISTENER, certificate_issued=issued, certificate_expires=expires,
        authorities_issued=issued, authorities_expire=expires,
    )  # fmt: skip
    own = CertificateFacts(path="/w.crt", issued=issued, expires=expires)
    assert worst(replace(SOUND, broker=broker(listeners=(fresh,)), client_certificate=own, now=NOW)) == []


def test_a_sound_listener_is_ok() -> None:
    plain = replace(LISTENER, address="127.0.0.1:7443", tls="none", certificate_expires=0.0)
    found = [one for one in judge(replace(SOUND, broker=broker(listeners=(LISTENER, plain)))) if one.check == "network"]
    assert [str(one.status) for one in found] == ["ok", "ok"]
    assert "mutual, the certificate ends in 90 days, 3 connections" in found[0].evidence


def test_a_sound_world_has_nothing_but_ok() -> None:
    findings = judge(SOUND)
    assert {one.status for one in findings} == {FindingStatus.OK}
    assert {one.check for one in findings} >= {
        "settings", "production", "runtime directory", "disk", "limits", "orphans", "greenlets", "database",
        "migrations", "clock", "broker", "duplicate brokers", "beat", "beat entries", "message transport", "consumers",
        "jobs", "fast path", "interpreter", "adapter", "pool", "API keys",
    }  # fmt: skip
    assert all(not one.fix for one in findings)


FAULTS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    # name: changes of the facts, the check, the status, a part of the evidence
    "a setting is wrong": (
        {"settings": replace(SETTINGS, problems=("SNAKEPIT is odd",))}, "settings", "problem", "SNAKEPIT is odd"),
    "debug": ({"settings": replace(SETTINGS, debug=True)}, "production", "warning", "DEBUG is on"),
    "a short key": ({"settings": replace(SETTINGS, secret_key_length=20)}, "production", "problem", "20 characters"),
    "a made key": (
        {"settings": replace(SETTINGS, secret_key_insecure=True)}, "production", "problem", "made for development"),
    "no hosts": ({"settings": replace(SETTINGS, allowed_hosts=())}, "production", "problem", "every request is"),
    "all hosts": ({"settings": replace(SETTINGS, allowed_hosts=("*",))}, "production", "warning", "is *"),
    "no broker": ({"broker": Unknown("nobody answers")}, "broker", "problem", "nobody answers"),
    "a bad definition": ({"broker": broker(problems=("x: size",))}, "broker", "problem", "x: size"),
    "an old release": ({"broker": broker(version="0.9")}, "broker", "warning", "release 0.9, and 1.0"),
    "a late loop": ({"broker": broker(loop_lag=0.5)}, "broker", "warning", "500 ms late"),
    "it drains": ({"broker": broker(draining=True)}, "broker", "warning", "shutting down"),
    "drained": (
        {"broker": broker(draining=True, drain_since=5.0, drain_actor="ada", drain_reason="")},
        *("broker", "warning", "drained by ada"),
    ),
    "no clock": ({"broker": broker(clock="lifecycle clock missing")}, "beat", "problem", "clock missing"),
    "never a sweep": ({"broker": broker(clock="waiting")}, "beat", "problem", "no sweep"),
        "beat lacks an entry": (
        {"celery": replace(CELERY, missing=("snakepit.sweep",))},
        *("beat entries", "problem", "the Celery app shop lacks snakepit.sweep"),
    ),
    "jobs in prefork": (
        {"transport": replace(TRANSPORT, worker_pools={"celery@n1": "prefork"})},
        *("consumers", "warning", "celery@n1 has the pool prefork and reads job queues"),
    ),
    "a certificate that ends soon": (
        {"broker": broker(listeners=(replace(LISTENER, certificate_expires=NOW + 2 * 86_400),))},
        *("network", "warning", "the certificate of 0.0.0.0:7443 ends in 2.0 days"),
    ),
    "a revocation list that expires soon": (
        {"broker": broker(listeners=(replace(LISTENER, lists_issued=NOW - 86_400, lists_expire=NOW + 5400),))},
        *("network", "warning", "a revocation list of 0.0.0.0:7443 expires in 1.5 h"),
    ),
    "a certificate for a day that was not renewed": (
        {"broker": broker(listeners=(replace(LISTENER, certificate_issued=NOW - 6e4, certificate_expires=NOW + 2e4),))},
        *("network", "warning", "the certificate of 0.0.0.0:7443 ends in 0.2 days"),
    ),
    "an authority of clients that ends soon": (
        {"broker": broker(listeners=(replace(LISTENER, authorities_issued=NOW - 9e7, authorities_expire=NOW + 1e6),))},
        *("network", "warning", "a certificate in client_ca of 0.0.0.0:7443 ends in 11.6 days"),
    ),
    "authorities of clients that have ended": (
        {"broker": broker(listeners=(replace(LISTENER, authorities_expire=NOW - 9),))},
        *("network", "problem", "every certificate in client_ca of 0.0.0.0:7443 has ended"),
    ),
    "a client certificate that ends soon": (
        {"client_certificate": CertificateFacts(path="/w.crt", issued=NOW - 9e7, expires=NOW + 1e6), "now": NOW},
        *("client certificate", "warning", "BROKER_TLS: cert /w.crt ends in 11.6 days"),
    ),
    "a client certificate that has ended": (
        {"client_certificate": CertificateFacts(path="/w.crt", issued=NOW - 9e7, expires=NOW - 9), "now": NOW},
        *("client certificate", "problem", "/w.crt has ended: brokers refuse it"),
    ),
    "a client certificate that cannot be read": (
        {"client_certificate": CertificateFacts(path="/w.crt", trouble="No such file or directory"), "now": NOW},
        *("client certificate", "problem", "BROKER_TLS: cert /w.crt: No such file"),
    ),
    "a certificate that has ended": (
        {"broker": broker(listeners=(replace(LISTENER, certificate_expires=NOW - 60),))},
        *("network", "problem", "that of 0.0.0.0:7443 has ended"),
    ),
    "a file that is not in force": (
        {"broker": broker(listeners=(replace(LISTENER, problem="LISTEN_TLS: cert /x: no such file"),))},
        *("network", "problem", "cert /x: no such file"),
    ),
    "no TLS": (
        {"broker": broker(listeners=(replace(LISTENER, tls="none", certificate_expires=0.0),))},
        *("network", "warning", "0.0.0.0:7443 takes calls without TLS"),
    ),
    "two brokers": (
        {"database": replace(DATABASE, nodes=(replace(OWN, pid=8, address="/tmp/b.sock"),))},
        "duplicate brokers", "problem", "two brokers call themselves n1"),
    "a silent broker": (
        {"database": replace(DATABASE, nodes=(OWN, replace(OWN, name="n2", silent=500.0)))},
        "duplicate brokers", "warning", "n2 stopped reporting 500 s ago"),
    "the fast path fails with what is installed": (
        {"fast_path": replace(FAST_PATH, problem="grpclib 0.4.9, h2 4.2.0: AttributeError: _data")},
        "fast path", "warning", "h2 4.2.0: AttributeError: _data; calls take about twice the time"),
    "no redis": (
        {"transport": replace(TRANSPORT, error="refused")}, "message transport", "problem", "be reached: refused"),
    "files": (
        {"transport": replace(TRANSPORT, scheme="filesystem", url="filesystem://")},
        "message transport", "warning", "messages are files"),
    "it evicts": ({"transport": replace(TRANSPORT, evicts="allkeys-lru")}, "message transport", "warning", "(maxmem"),
    "it forgets": ({"transport": replace(TRANSPORT, persistent=False)}, "message transport", "warning", "a restart"),
    "no worker": ({"transport": replace(TRANSPORT, workers={})}, "consumers", "problem", "no Celery worker answers"),
    "a queue without a reader": (
        {"transport": replace(TRANSPORT, workers={"celery@n1": frozenset({"celery"})})},
        "consumers", "problem", "no Celery worker reads snakepit.digits"),
    "jobs wait": ({"database": replace(DATABASE, jobs_overdue=3, jobs_oldest=90.0)}, "jobs", "warning", "3 jobs are"),
    "no database": ({"database": Unknown("refused")}, "database", "problem", "refused"),
    "sqlite as it comes": (
        {"database": replace(DATABASE, vendor="sqlite", journal="delete", timeout=5.0)},
        "database", "warning", "journal delete, deferred"),
    "connections": ({"database": replace(DATABASE, connections=90)}, "database", "warning", "90 of 100 connections"),
    "migrations": ({"database": replace(DATABASE, unapplied=("a.0002",))}, "migrations", "problem", "a.0002"),
    "drift": ({"database": replace(DATABASE, drift=2.0)}, "clock", "warning", "2.0 s ahead of this machine"),
    "much drift": ({"transport": replace(TRANSPORT, drift=-60.0)}, "clock", "problem", "60.0 s behind this machine"),
    "a key ends": (
        {"database": replace(DATABASE, keys=(known.ApiKeyFacts(name="robot", days_left=3.0),))},
        "API keys", "warning", "robot expires in 3.0 days"),
    "an open directory": (
        {"runtime": replace(RUNTIME, directory=replace(RUNTIME.directory, mode=0o755))},
        "runtime directory", "problem", "open to others (mode 0755)"),
    "a stranger's directory": (
        {"runtime": replace(RUNTIME, directory=replace(RUNTIME.directory, owner=0))},
        "runtime directory", "problem", "belongs to user 0"),
    "a readable token": (
        {"runtime": replace(RUNTIME, token=replace(RUNTIME.token, mode=0o644))},
        "runtime directory", "problem", "token is open"),
    "a long path": ({"runtime": replace(RUNTIME, longest_socket=120)}, "runtime directory", "problem", "120 bytes"),
    "a full disk": ({"runtime": replace(RUNTIME, rooms=(replace(ROOM, free=10 * 2**20),))}, "disk", "problem", "0.0 G"),
    "no inodes": ({"runtime": replace(RUNTIME, rooms=(replace(ROOM, inodes_free=5),))}, "disk", "problem", "5 inodes"),
    "little room": ({"runtime": replace(RUNTIME, rooms=(replace(ROOM, free=2**29),))}, "disk", "warning", "0.5 GiB"),
    "few files": ({"machine": replace(MACHINE, open_files=64)}, "limits", "problem", "may open 64 files"),
    "few processes": ({"machine": replace(MACHINE, processes=105)}, "limits", "problem", "100 of 105 processes"),
    "a small cgroup": (
        {"machine": replace(MACHINE, cgroup_processes=50, cgroup_processes_now=45)}, "limits", "problem", "45 of 50"),
    "killed for memory": ({"machine": replace(MACHINE, cgroup_oom_kills=2)}, "limits", "warning", "killed 2 processes"),
    "a full cgroup": (
        {"machine": replace(MACHINE, cgroup_memory_mb=1000.0, cgroup_memory_used_mb=950.0)},
        "limits", "warning", "950 of 1000 MiB"),
    "little memory": ({"machine": replace(MACHINE, memory_available_mb=100.0)}, "limits", "warning", "100 of 8000 MiB"),
    "throttled": ({"machine": replace(MACHINE, cgroup_cores=2.0, cgroup_throttled=0.4)}, "limits", "warning", "40%"),
    "orphans": ({"machine": replace(MACHINE, orphans=(11, 12))}, "orphans", "problem", "11 12"),
    "a web server on gevent": (
        {"machine": replace(MACHINE, greenlets=((7, "gevent", "gunicorn -k gevent shop.wsgi"),))},
        "greenlets", "problem", "process 7 has loaded gevent, where calls, the REST API and jobs do not work"),
    "a Celery worker on gevent": (
        {"transport": replace(TRANSPORT, worker_pools={"celery@n1": "gevent"})},
        "consumers", "warning", "celery@n1 runs on gevent: it takes no job of a pool"),
    "no python": (
        {"pools": (replace(POOL, interpreter=replace(PYTHON, error="cannot be run")),)},
        "interpreter", "problem", "cannot be run"),
    "an adapter that fails": (
        {"pools": (replace(POOL, adapter=replace(ADAPTER, error="ImportError: x")),)}, "adapter", "problem", "Import"),
    "an unsafe adapter": (
        {"pools": (replace(POOL, profile="thread", adapter=replace(ADAPTER, thread_safe=False)),)},
        "adapter", "problem", "does not set"),
    "a refused definition": ({"pools": (replace(POOL, name="x", problem="size"),)}, "pool", "problem", "size"),
    "other settings than the broker's": (
        {"pools": (replace(POOL, problem="adapter"),)}, "pool", "warning", "not those of this process"),
    "a pool that the broker lacks": ({"pools": (replace(POOL, name="new"),)}, "pool", "problem", "does not run it"),
    "a failed pool": ({"broker": broker({"state": "failed", "reason": "no model"})}, "pool", "problem", "no model"),
    "a stuck rollout": (
        {"broker": broker({"state": "degraded", "ready": 2, "size": 2, "reason": "9 failed starts in a row"})},
        "pool", "warning", "9 failed starts"),
    "a degraded pool": ({"broker": broker({"state": "degraded"})}, "pool", "warning", "degraded"),
    "a gil that is on": ({"broker": broker({"warnings": ("the GIL is on",)})}, "pool", "warning", "the GIL is on"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_with_its_evidence_and_a_fix(fault: str) -> None:
    changes, check, severity, evidence = FAULTS[fault]
    found = [one for one in worst(replace(SOUND, **changes)) if one.check == check]
    assert [one.status for one in found] == [severity]
    assert evidence in found[0].evidence
    assert found[0].fix
    assert not [one for one in judge(replace(SOUND, **changes)) if one.check == check and one.status == "problem"][1:]


def test_a_part_that_is_not_known_is_skipped_with_the_reason_and_hides_no_other() -> None:
    unknown = Unknown("was not looked at")
    facts = replace(SOUND, runtime=unknown, machine=unknown, transport=unknown, pools=unknown)
    skipped = [one for one in judge(facts) if one.status == FindingStatus.SKIPPED]
    assert {one.check for one in skipped} >= {"runtime directory", "disk", "limits", "interpreter", "adapter", "pool"}
    assert not worst(facts)


def test_everything_unknown_raises_nothing() -> None:
    unknown = Unknown("away")
    facts = replace(
        SOUND, runtime=unknown, machine=unknown, transport=unknown, pools=unknown, broker=unknown, database=unknown
    )
    assert {one.check for one in worst(facts)} == {"broker", "database"}


def test_a_young_broker_without_a_sweep_is_no_problem() -> None:
    (finding,) = [
        one for one in judge(replace(SOUND, broker=broker(clock="waiting", uptime=5.0))) if one.check == "beat"
    ]
    assert finding.status == FindingStatus.SKIPPED


def test_pools_that_are_not_enabled_are_not_judged() -> None:
    idle = replace(POOL, name="old", queue="snakepit.old", enabled=False, interpreter=replace(PYTHON, error="gone"))
    assert not worst(replace(SOUND, pools=(POOL, idle)))


def test_a_report_is_healthy_with_warnings_and_not_with_a_problem() -> None:
    warning = Finding("x", FindingStatus.WARNING, "soon", "do")
    assert report_of(1.0, 0.12345, [warning]).healthy
    report = report_of(1.0, 0.12345, [warning, Finding("x", FindingStatus.PROBLEM, "now", "do")])
    assert not report.healthy
    assert report.counts == {"ok": 0, "warning": 1, "problem": 1, "skipped": 0}
    assert report.seconds == 0.123


RACE = "unlocked writes from two threads to `Totals.count`; the events thread.race have both stacks"
GIL = "p-1: the interpreter is free-threaded, but the GIL is on because of orjson"
SPAWNED = "workers are spawned one by one: 3 threads run after preload()"


@pytest.mark.parametrize(("text", "fix"), [(RACE, "@locked"), (GIL, "snakepit compat p"), (SPAWNED, "preload()")])
def test_the_fix_of_a_warning_fits_its_cause(text: str, fix: str) -> None:
    unsafe = template("refused", reason="unsafe", why="3 threads run after preload()")
    one = pool("p", warnings=(text,), races=("Totals.count",), template=unsafe)
    (finding,) = [found for found in _running(one) if found.status == "warning"]
    assert fix in finding.fix
    assert ("compat" in finding.fix) == (text == GIL)


@pytest.mark.parametrize(
    ("changes", "evidence"),
    [
        ({"broker": broker(clock="waiting"), "transport": Unknown("no app")}, "no Celery app"),
        (
            {"broker": broker(clock="lifecycle clock missing"), "database": replace(DATABASE, has_jobs=False)},
            "No job was ever submitted",
        ),
    ],
)
def test_a_project_without_jobs_needs_no_beat(changes: dict[str, Any], evidence: str) -> None:
    (finding,) = [one for one in judge(replace(SOUND, **changes)) if one.check == "beat"]
    assert (finding.status, evidence in finding.evidence) == ("ok", True)


GPU = replace(POOL, name="gpu", queue="snakepit.digits", nodes=("gpu=yes",), here=False)


def test_a_pool_that_no_living_node_hosts_is_a_problem() -> None:
    gone = known.NodeRowFacts(name="n2", address="", pid=1, stopped=True, silent=1.0, labels=("gpu=yes",))
    facts = replace(SOUND, pools=(POOL, GPU), database=replace(DATABASE, nodes=(OWN, gone)))
    (found,) = worst(facts)
    assert (found.check, found.pool) == ("placement", "gpu")
    assert found.evidence == "no living node is gpu=yes: its calls are refused and its jobs wait"
    back = replace(facts, database=replace(DATABASE, nodes=(OWN, replace(gone, stopped=False))))
    assert not worst(back)
    assert any(one.evidence == "gpu=yes: n2" for one in judge(back))


def test_a_pool_of_other_nodes_needs_no_room_and_no_interpreter_here() -> None:
    gone = Unknown("the status may not be read")
    big = replace(GPU, size=1000, interpreter=gone, adapter=gone)
    node = known.NodeRowFacts(name="n2", address="", pid=1, stopped=False, silent=1.0, labels=("gpu=yes",))
    assert not worst(replace(SOUND, pools=(POOL, big), database=replace(DATABASE, nodes=(OWN, node))))


@pytest.mark.parametrize("silent", [True, False])
def test_a_frozen_broker_is_not_called_a_crashed_one_and_no_second_one_is_advised(silent: bool) -> None:
    found = worst(replace(SOUND, broker=Unknown("the broker did not answer", silent=silent)))
    advice = " ".join(one.fix or "" for one in found)
    assert {one.check for one in found} == ({"broker"} if silent else {"broker", "runtime directory"})
    assert ("kill -CONT" in advice, "snakepit broker" in advice, "crashed" in advice) == (
        silent,
        not silent,
        not silent,
    )


def test_a_broker_without_its_database_advises_to_start_it_and_blames_no_pool() -> None:
    away = replace(SOUND, broker=status([], **NODE, problems=(f"{NOT_READ}: connection timeout expired",)))
    found = [one for one in worst(away) if one.check in ("broker", "pool")]
    assert [one.fix for one in found] == ["Start the database: the broker reads the definitions again by itself."]
    wrong = replace(SOUND, broker=status([], **NODE, problems=("digits: size: 0 is outside 1 to 1000",)))
    assert [one.evidence for one in worst(wrong) if one.check == "pool"] == ["the broker does not run it"]


def test_a_broker_that_answers_but_cannot_write_is_not_reported_as_gone() -> None:
    away = replace(SOUND, database=replace(DATABASE, nodes=(replace(OWN, silent=65.0),)))
    (found,) = worst(away)
    assert found.evidence == "the broker of n1 answers, but has written nothing to the database for 65 s"
    assert "disk" in (found.fix or "")


def test_a_small_disk_is_shown_in_its_own_unit() -> None:
    tiny = replace(ROOM, path="/data", free=2**18, total=24 * 2**20)
    (found,) = worst(replace(SOUND, runtime=replace(RUNTIME, rooms=(tiny,))))
    assert found.evidence.startswith("/data: 0.2 MiB free of 24.0")
