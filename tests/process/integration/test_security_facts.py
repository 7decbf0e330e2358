"""What the security checks read: files by their modes, processes, the site's settings, keys."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snakepit.pools import conf
from snakepit.pools.broker.node_status import ListenerStatus
from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.diagnostics import exposure, protection, security
from snakepit.pools.diagnostics.facts import Unknown
from snakepit.pools.diagnostics.security_facts import LimitFacts, RevocationFacts
from snakepit.pools.models import ApiKey
from snakepit.pools.models.moments import utc_now
from tests.certificates import Authority
from tests.process.integration.fakes import unreachable


def away() -> BrokerStatus:
    raise unreachable()


OTHER = 54_321  # a user that owns nothing here


def test_a_file_is_read_by_those_whom_it_and_the_directories_above_it_let(tmp_path: Path) -> None:
    home = Path(os.path.realpath("/tmp")) / f"sp-read-{os.getpid()}"
    home.mkdir()
    file = home / "db"
    file.write_text("x")
    try:
        for directory, mode, groups, readable in [
            (0o755, 0o644, (), True),
            (0o755, 0o640, (), False),
            (0o711, 0o644, (), True),
            (0o700, 0o644, (), False),
            (0o750, 0o640, (os.getegid(),), True),
            (0o755, 0o604, (os.getegid(),), False),
        ]:
            home.chmod(directory)
            file.chmod(mode)
            assert protection.can_read(file, OTHER, set(groups)) == readable, (oct(directory), oct(mode))
        assert protection.can_read(file, 0, set())
        assert not protection.can_read(home / "missing", OTHER, set())
    finally:
        file.unlink()
        home.rmdir()


def test_a_process_is_read_as_the_kernel_shows_it() -> None:
    me = protection.process("me", os.getpid())
    assert me
    assert (me.name, me.pid, me.uid) == ("me", os.getpid(), os.geteuid())
    assert protection.process("gone", 2**22 + 1) is None


def test_the_site_is_set_up_as_its_settings_say(settings: Any) -> None:
    found = protection.deploy()
    assert found.has_policy
    assert found.reads_proxies
    assert found.trusts_tls_header
    settings.SILENCED_SYSTEM_CHECKS = [name for name, _, _ in found.warnings]
    assert found.warnings
    assert protection.deploy().warnings == ()
    settings.MIDDLEWARE = ["django.middleware.csp.ContentSecurityPolicyMiddleware"]
    found = protection.deploy()
    assert (found.has_policy, found.reads_proxies) == (True, False)


def test_patterns_that_match_a_variable_that_selects_code_are_named(settings: Any) -> None:
    settings.SNAKEPIT = {"WORKER_ENV_ALLOWED": ["SHOP_*", "LD_*", "HOME"], "WORKER_ENV": ["SHOP_TOKEN", "SHOP_URLS"]}
    conf.forget()
    found = protection.environment()
    assert found.allowed == ("LD_*", "HOME")
    assert found.passed == ("SHOP_TOKEN",)


@pytest.mark.django_db
def test_keys_have_their_expiry_and_last_use(django_user_model: Any) -> None:
    ada = django_user_model.objects.create_user("ada")
    end = utc_now() + timedelta(days=10)
    ApiKey.create(name="ends", owner=ada, expires_at=end)
    ApiKey.create(name="endless", owner=ada)
    ApiKey.create(name="revoked", owner=ada)[0].revoke()
    ApiKey.objects.filter(name="endless").update(created_at=utc_now() - timedelta(days=100))
    found = {one.name.split()[0]: one for one in exposure.api_keys()}
    assert set(found) == {"ends", "endless"}
    assert found["endless"].days_left is None
    assert found["endless"].unused_days > 99
    assert 9 < (found["ends"].days_left or 0) <= 10


@pytest.mark.django_db
def test_a_key_that_is_rotated_names_its_successor(django_user_model: Any) -> None:
    ada, bob = (django_user_model.objects.create_user(name) for name in ("ada", "bob"))
    old, _ = ApiKey.create(name="ci", owner=ada)
    new, _ = old.rotate()
    ApiKey.create(name="ci", owner=bob)
    found = {one.name: one for one in exposure.api_keys()}
    assert len(found) == 3
    assert {one.successor for name, one in found.items() if name != str(old)} == {""}
    assert found[str(old)].successor == new.visible
    assert 6 < (found[str(old)].days_left or 0) <= 7


@pytest.mark.django_db
def test_limits_that_are_off_are_named(django_user_model: Any, settings: Any) -> None:
    ada = django_user_model.objects.create_user("ada")
    assert exposure.limits() == LimitFacts(settings=(), keys=(), number=0)
    key, _ = ApiKey.create(name="ci", owner=ada, limits={"streams": 0, "jobs_waiting": 0})
    settings.SNAKEPIT = {"KEY_LIMITS": {"calls_per_second": 0}, "OWNER_SHARE": 1.0}
    conf.forget()
    off = ("KEY_LIMITS['calls_per_second'] is 0", "OWNER_SHARE is the whole queue")
    assert exposure.limits() == LimitFacts(settings=off, keys=(f"{key}: streams",), number=1)


def test_network_addresses_and_revocation_lists_are_read(tmp_path: Path, settings: Any) -> None:
    authority = Authority(tmp_path)
    certificate, _ = authority.issue("a")
    lists = tmp_path / "crl.pem"
    lists.write_bytes(authority.revoke(certificate, days=4))
    end = time.time() + 10 * 86_400
    listeners = (
        ListenerStatus("[::]:7443", "mutual", end, "", 0, 0, {}),
        ListenerStatus("127.0.0.1:1", "none", 0, "", 0, 0, {}),
    )
    status: Any = SimpleNamespace(node=SimpleNamespace(listeners=listeners))
    files = dict.fromkeys(("cert", "key", "client_ca"), "x")
    settings.SNAKEPIT = {"LISTEN_TLS": {**files, "crl": str(lists)}}
    conf.forget()
    found = exposure.network(status)
    assert [(one.loopback, one.tls) for one in found.listeners] == [(False, "mutual"), (True, "none")]
    assert found.listeners[0].days_left == pytest.approx(10, abs=0.1)
    assert isinstance(found.revocation, RevocationFacts)
    assert (found.revocation.revoked, found.revocation.days_left) == (1, pytest.approx(4, abs=0.1))
    lists.write_text("no list")
    assert "crl.pem cannot be read" in exposure.network(status).revocation.reason
    settings.SNAKEPIT = {}
    conf.forget()
    assert exposure.network(status).revocation is None


@pytest.mark.parametrize(
    ("database", "password", "encrypted"),
    [
        ({"ENGINE": "django.db.backends.postgresql", "HOST": "db", "PASSWORD": "x"}, True, False),
        ({"ENGINE": "django.db.backends.postgresql", "HOST": "db", "OPTIONS": {"sslmode": "require"}}, False, True),
        ({"ENGINE": "django.db.backends.postgresql", "HOST": "/run/postgresql"}, True, True),
        ({"ENGINE": "django.db.backends.sqlite3", "NAME": "/srv/db"}, None, True),
    ],
)
def test_the_database_is_described_without_its_password(
    settings: Any, monkeypatch: pytest.MonkeyPatch, database: dict[str, Any], password: bool | None, encrypted: bool
) -> None:
    monkeypatch.setitem(settings.DATABASES, "default", database)
    found = protection.services()
    assert (found.database_password, found.database_encrypted) == (password, encrypted)
    assert found.unsafe_content == ()


def test_without_a_broker_its_parts_are_unknown_and_the_others_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "api_keys", lambda: 1 / 0)
    found = security.gather(away)
    assert isinstance(found.broker, Unknown)
    assert isinstance(found.workers, Unknown)
    assert isinstance(found.keys, Unknown)
    assert "ZeroDivisionError" in found.keys.reason
    assert not isinstance(found.deploy, Unknown)


def test_wrong_settings_are_the_reason_for_everything(settings: Any) -> None:
    settings.SNAKEPIT = {"ADAPTRES": {}}
    conf.forget()
    report = security.examine(away)
    assert {str(one.status) for one in report.findings} == {"skipped"}
    assert "ADAPTRES" in report.findings[0].evidence
