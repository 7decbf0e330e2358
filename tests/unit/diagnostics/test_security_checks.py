"""The security checks: a healthy world has no finding, and each fault in it has its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from snakepit.pools.diagnostics.facts import FileFacts, Unknown
from snakepit.pools.diagnostics.finding import Finding
from snakepit.pools.diagnostics.security_checks import CHECKS
from snakepit.pools.diagnostics.security_facts import (
    BrokerProcessFacts,
    DeployFacts,
    EnvironmentFacts,
    KeyFacts,
    LimitFacts,
    ListenerFacts,
    NetworkFacts,
    ProcessFacts,
    ReachFacts,
    RevocationFacts,
    SecurityFacts,
    ServiceFacts,
)

BROKER = ProcessFacts(name="broker", pid=10, uid=1000, no_new_privs=False, capabilities=0x800E3)
WORKER = ProcessFacts(name="digits-1", pid=11, uid=2000, no_new_privs=True, capabilities=0)
CLOSED = replace(WORKER, sandbox="network, files (Landlock 7)", shares_network=False)
DEPLOY = DeployFacts(
    warnings=(),
    redirects_to_tls=True,
    trusts_tls_header=True,
    reads_proxies=True,
    proxies=("10.0.0.1",),
    has_policy=True,
)
TOKEN = ReachFacts(uid=2000, what="token", path="/run/snakepit/token", readable=False)
ENVIRONMENT = EnvironmentFacts(worker_user="worker", passed=(), allowed=())
KEY = KeyFacts(name="ci (snk_1)", days_left=30, unused_days=1)
LISTENER = ListenerFacts(address="0.0.0.0:7443", loopback=False, tls="mutual", days_left=300, trouble="")
LISTS = RevocationFacts(path="/etc/revoked.pem", revoked=3, days_left=6)
NETWORK = NetworkFacts(listeners=(LISTENER,), revocation=LISTS)
LIMITS = LimitFacts(settings=(), keys=(), number=2)
SERVICES = ServiceFacts(
    database="postgresql at db", database_password=True, database_encrypted=True, messages="redis://redis/0",
    messages_password=True, unsafe_content=(),
)  # fmt: skip
HEALTHY = SecurityFacts(
    deploy=DEPLOY,
    runtime=(FileFacts(path="/run/snakepit", mode=0o700, owner=1000, kind="directory"),),
    user=1000,
    broker=BrokerProcessFacts(process=BROKER, closed=True, secrets=Unknown("Permission denied")),
    workers=(WORKER,),
    reach=(TOKEN,),
    environment=ENVIRONMENT,
    keys=(KEY,),
    network=NETWORK,
    limits=LIMITS,
    services=SERVICES,
)
PARTS = ("deploy", "runtime", "broker", "workers", "reach", "environment", "keys", "network", "limits", "services")


def findings(facts: SecurityFacts) -> list[Finding]:
    return [finding for check in CHECKS for finding in check(facts)]


def test_a_healthy_service_has_only_good_findings_each_with_evidence() -> None:
    found = findings(HEALTHY)
    assert {one.status for one in found} == {"ok"}
    assert all(one.evidence and not one.fix for one in found)
    assert len({one.check for one in found}) == len(found) == 15


def test_what_the_kernel_closes_is_shown_as_evidence() -> None:
    found = {one.check: one for one in findings(replace(HEALTHY, workers=(CLOSED,)))}
    assert found["sandbox"].status == "ok"
    assert "digits-1: network, files (Landlock 7)" in found["sandbox"].evidence
    assert "open to" not in found["worker user"].evidence


SAME = replace(WORKER, uid=1000, no_new_privs=False)
SHOWN = BrokerProcessFacts(process=replace(BROKER, uid=0), closed=None, secrets=())
ALONE = replace(ENVIRONMENT, worker_user="")


def listening(**changes: Any) -> NetworkFacts:
    return replace(NETWORK, listeners=(replace(LISTENER, **changes),))


def listed(lists: Any) -> NetworkFacts:
    return replace(NETWORK, revocation=lists)


FAULTS: list[tuple[dict[str, Any], str, str, str]] = [
    ({"deploy": replace(DEPLOY, warnings=(("security.W004", "no HSTS", ""),))}, "deployment", "warning", "no HSTS"),
    ({"deploy": replace(DEPLOY, warnings=(("security.W009", "short", "x"),))}, "deployment", "problem", "short"),
    ({"deploy": replace(DEPLOY, has_policy=False)}, "content policy", "warning", "no middleware"),
    ({"deploy": replace(DEPLOY, proxies=())}, "proxies", "warning", "no proxy is named"),
    ({"deploy": replace(DEPLOY, reads_proxies=False)}, "proxies", "problem", "each client can claim"),
    ({"deploy": replace(DEPLOY, reads_proxies=False, trusts_tls_header=False)}, "proxies", "warning", "not checked"),
    ({"runtime": (FileFacts(path="/r/token", mode=0o644),)}, "runtime directory", "problem", "/r/token has mode 0644"),
    ({"broker": BrokerProcessFacts(process=BROKER, closed=False, secrets=())}, "broker process", "problem", "memory"),
    ({"broker": replace(SHOWN, secrets=("SECRET_KEY",))}, "broker process", "problem", "environ shows SECRET_KEY"),
    ({"broker": SHOWN}, "broker process", "warning", "as root"),
    ({"workers": (SAME,), "environment": ALONE}, "worker user", "warning", "1 workers run as"),
    ({"workers": (SAME,), "environment": ALONE}, "worker user", "warning", "; the network open to digits-1; all files"),
    ({"workers": (replace(CLOSED, shares_network=True),)}, "sandbox", "problem", "digits-1 reports no network"),
    ({"workers": (SAME,)}, "worker user", "problem", "not as worker"),
    ({"workers": (replace(WORKER, capabilities=1),)}, "worker user", "problem", "has capabilities 1"),
    ({"workers": (replace(WORKER, no_new_privs=False),)}, "worker user", "problem", "can gain privileges"),
    ({"reach": (replace(TOKEN, readable=True),)}, "adapter code", "warning", "can read the token: /run/snakepit/token"),
    ({"environment": replace(ENVIRONMENT, passed=("DB_PASSWORD",))}, "worker environment", "warning", "DB_PASSWORD"),
    ({"environment": replace(ENVIRONMENT, allowed=("LD_*",))}, "worker environment", "problem", "LD_*"),
    ({"keys": (replace(KEY, days_left=None),)}, "API keys", "warning", "do not expire: ci"),
    ({"keys": (replace(KEY, unused_days=100),)}, "API keys", "warning", "not used for 90 days: ci"),
    ({"keys": (replace(KEY, days_left=3),)}, "key rotation", "warning", "ci (snk_1) in 3.0 days"),
    ({"limits": replace(LIMITS, settings=("KEY_LIMITS['streams'] is 0",))}, "caller limits", "warning", "['streams']"),
    ({"limits": replace(LIMITS, keys=("ci: streams",))}, "caller limits", "warning", "ci: streams"),
    ({"network": listening(tls="none")}, "network", "problem", "0.0.0.0:7443 takes calls without TLS"),
    ({"network": listening(days_left=-1)}, "network", "problem", "has ended"),
    ({"network": listening(trouble="LISTEN_TLS: key: no")}, "network", "problem", "LISTEN_TLS: key: no"),
    ({"network": listed(None)}, "revocation lists", "warning", "until it ends"),
    ({"network": listed(Unknown("not readable"))}, "revocation lists", "problem", "not readable"),
    ({"network": listed(replace(LISTS, days_left=0.5))}, "revocation lists", "warning", "expires in 0.5 days"),
    ({"network": listed(replace(LISTS, days_left=-1))}, "revocation lists", "problem", "has expired"),
    ({"services": replace(SERVICES, database_password=False)}, "database", "warning", "without a password"),
    ({"services": replace(SERVICES, database_encrypted=False)}, "database", "warning", "without TLS"),
    ({"services": replace(SERVICES, messages_password=False)}, "messages", "warning", "without a password"),
    ({"services": replace(SERVICES, unsafe_content=("pickle",))}, "messages", "problem", "pickle"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "check", "status", "words"), FAULTS)
def test_a_fault_has_a_finding_with_evidence_and_a_fix(
    change: dict[str, Any], check: str, status: str, words: str
) -> None:
    (found,) = [one for one in findings(replace(HEALTHY, **change)) if one.status != "ok"]
    assert (found.check, found.status) == (check, status)
    assert words in found.evidence
    assert found.fix


@pytest.mark.parametrize("part", PARTS)
def test_what_cannot_be_read_is_skipped_with_the_reason(part: str) -> None:
    found = [one for one in findings(replace(HEALTHY, **{part: Unknown("no such luck")})) if one.status != "ok"]
    assert found
    assert {(str(one.status), one.evidence) for one in found} == {("skipped", "no such luck")}


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        ({"keys": (replace(KEY, days_left=2, successor="snk_2"),)}, "key rotation", "for 2.0 days beside snk_2"),
        ({"keys": (KEY,)}, "key rotation", "none under way; the next key ends in 30 days"),
        ({"keys": ()}, "key rotation", "no key ends"),
        ({"network": NetworkFacts(listeners=(), revocation=None)}, "network", "Unix socket only"),
        ({"network": listening(tls="none", loopback=True)}, "network", "0.0.0.0:7443: no TLS"),
        ({"network": listening(tls="server")}, "network", "TLS with an API key, certificate for 300 days"),
        ({}, "revocation lists", "/etc/revoked.pem: 3 revoked; the next list expires in 6.0 days"),
        ({"network": listed(replace(LISTS, days_left=None))}, "revocation lists", "without an end"),
        ({"limits": replace(LIMITS, number=0)}, "caller limits", "no key has limits of its own"),
    ],
)
def test_what_is_well_has_its_evidence(change: dict[str, Any], check: str, words: str) -> None:
    (found,) = [one for one in findings(replace(HEALTHY, **change)) if one.check == check]
    assert found.status == "ok"
    assert words in found.evidence


def test_of_two_keys_the_older_one_without_an_end_is_named() -> None:
    old = replace(KEY, days_left=None, successor="snk_2")
    found = {one.evidence: one for one in findings(replace(HEALTHY, keys=(old,))) if one.check == "key rotation"}
    assert [*found] == ["two keys of one name, and the older has no end: ci (snk_1) beside snk_2"]
