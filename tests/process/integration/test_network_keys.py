"""API keys of the database as callers over the network: the rights and limits are those of REST."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from snakepit.pools import conf, permissions
from snakepit.pools.adapters.network import database_keys, keys
from snakepit.pools.adapters.network.database_keys import DatabaseKeys
from snakepit.pools.adapters.network.identity import NetworkCaller
from snakepit.pools.adapters.network.keys import FRESH, STALE, KeyCache
from snakepit.pools.adapters.network.of_settings import listen_config
from snakepit.pools.broker.errors import DatabaseUnavailable, Unauthenticated
from snakepit.pools.cli.main import run
from snakepit.pools.models import ApiKey
from snakepit.pools.models.apikey import quota_of


@pytest.fixture
def owner(django_user_model: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(database_keys, "close_old_connections", lambda: None)  # the test's transaction is open
    return django_user_model.objects.create_user("ada", is_superuser=True)


@pytest.mark.django_db
def test_a_key_has_its_scopes_pools_and_limits(owner: Any) -> None:
    key, secret = ApiKey.create(
        name="robot", owner=owner, scopes=("run",), pools=("digits",), limits={"calls_in_flight": 2}
    )
    found = DatabaseKeys().find(secret)
    assert found is not None
    assert (found.permissions, found.pools) == (permissions.of_scopes(["run"]), frozenset({"digits"}))
    assert found.quota == quota_of("ada", key)
    assert found.quota.key_limits.calls_in_flight == 2
    key.refresh_from_db()
    assert key.last_used_at is not None


@pytest.mark.django_db
@pytest.mark.parametrize("ended", ["revoked", "inactive", "unknown", "no key"])
def test_a_key_that_rest_refuses_is_refused(owner: Any, ended: str) -> None:
    key, secret = ApiKey.create(name="robot", owner=owner)
    if ended == "revoked":
        key.revoke()
    elif ended == "inactive":
        type(owner).objects.update(is_active=False)
    elif ended == "unknown":
        secret = "snk_000000000000_" + "a" * 43
    assert DatabaseKeys().find("" if ended == "no key" else secret) is None


class Source:
    def __init__(self) -> None:
        self.callers: dict[str, NetworkCaller] = {"good": NetworkCaller("key good", frozenset())}
        self.asked: list[str] = []
        self.fails = False
        self.hangs: threading.Event | None = None

    def find(self, secret: str) -> NetworkCaller | None:
        self.asked.append(secret)
        if self.hangs:
            self.hangs.wait(60)
        if self.fails:
            raise OSError("away")
        return self.callers.get(secret)


async def test_a_key_is_remembered_for_seconds_and_a_wrong_one_too() -> None:
    source, now = Source(), [0.0]
    cache = KeyCache(source, lambda: now[0])
    try:
        found = await asyncio.gather(*(cache.find("good") for _ in range(20)))
        assert {one.actor for one in found} == {"key good"}
        for _ in range(3):
            with pytest.raises(Unauthenticated):
                await cache.find("bad")
        assert source.asked == ["good", "bad"]
        source.callers.clear()
        assert await cache.find("good")
        now[0] += FRESH
        with pytest.raises(Unauthenticated, match="unknown, expired or revoked"):
            await cache.find("good")
    finally:
        cache.close()


async def test_a_database_that_is_away_leaves_known_keys_valid_for_a_while() -> None:
    source, now = Source(), [0.0]
    cache = KeyCache(source, lambda: now[0])
    try:
        await cache.find("good")
        source.fails = True
        now[0] += STALE - 1
        assert await cache.find("good")
        assert await cache.find("good")  # within FRESH of the failure: the database is not asked again
        assert source.asked == ["good", "good"]
        now[0] += FRESH
        with pytest.raises(DatabaseUnavailable):
            await cache.find("good")
        with pytest.raises(DatabaseUnavailable):
            await cache.find("new")
    finally:
        cache.close()


async def test_a_database_that_hangs_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "LOOKUP_SECONDS", 0.05)
    monkeypatch.setattr(keys, "MOST_WAITING", 2)
    source = Source()
    source.hangs = threading.Event()
    cache = KeyCache(source, lambda: 0.0)
    try:
        for secret in ("one", "two"):
            with pytest.raises(DatabaseUnavailable, match="does not answer"):
                await cache.find(secret)
        with pytest.raises(Exception, match="too many API keys wait"):
            await cache.find("three")
    finally:
        source.hangs.set()
        cache.close()


@pytest.mark.parametrize(
    ("snakepit", "words"),
    [
        ({"LISTEN": "0.0.0.0:7443"}, "is not a list of addresses"),
        ({"LISTEN": ["7443"]}, "'7443' is not host:port"),
        ({"LISTEN": ["::1:7443"]}, "is not host:port or [IPv6 address]:port"),
        ({"LISTEN": ["0.0.0.0:99999"]}, "is not host:port"),
        ({"LISTEN": ["0.0.0.0:7443"]}, '["LISTEN"]: 0.0.0.0:7443 would take calls without TLS: set LISTEN_TLS'),
        ({"LISTEN": ["[::1]:7443", "localhost:7443", "[::1]:7443"]}, "[::1]:7443 is in the list twice"),
        ({"LISTEN": ["127.0.0.1:\uff17"]}, "is not host:port"),
        ({"ADVERTISE": ["0.0.0.0:7443"]}, "is not an address that other hosts can connect to"),
        ({"ADVERTISE": ["gpu-1:0"]}, "is not an address that other hosts can connect to"),
        ({"NODE_NAME": "gpu=a100"}, "'gpu=a100' is not the name of a node"),
        ({"NODE_NAME": "web-1, web-2"}, "is not the name of a node; use up to 200 characters without spaces"),
        ({"LISTEN_TLS": {"cert": "/x"}}, "cert and key are needed"),
        ({"LISTEN_TLS": {"certs": "/x"}}, "'certs' is not one of cert, key, client_ca"),
        ({"BROKER_TLS": {"cert": "/x"}}, "cert and key belong together"),
        ({"LISTEN_CERTIFICATES": {"web": {"scope": ["run"]}}}, "is not a dict of scopes, pools, limits"),
        ({"LISTEN_CERTIFICATES": {"web": {"scopes": []}}}, "web: scopes: name at least one"),
        ({"LISTEN_CERTIFICATES": {"web": {"scopes": "run"}}}, "is not a list of names"),
        ({"LISTEN_CERTIFICATES": {"web": {"scopes": ["run"], "limits": {"x": 1}}}}, "web: limits: 'x' is not a limit"),
    ],
)
def test_a_wrong_setting_of_the_network_is_named(snakepit: Any, words: str) -> None:
    with override_settings(SNAKEPIT=snakepit), pytest.raises(ImproperlyConfigured) as caught:
        conf.current()
    assert words in str(caught.value)


def test_the_settings_become_the_listener_and_the_environment_names_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "gpu-1")
    files = {"cert": "/c", "key": "/k", "client_ca": "/ca"}
    settings = {
        "LISTEN": ["127.0.0.1:1"],
        "LISTEN_TLS": files,
        "LISTEN_STREAMS": 7,
        "LISTEN_CERTIFICATES": {"web": {"scopes": ["run"]}},
    }
    with override_settings(SNAKEPIT=settings):
        assert listen_config().addresses == ("127.0.0.1:1",)
        assert conf.advertised() == ()
    monkeypatch.setenv("SNAKEPIT_LISTEN", "0.0.0.0:7443, [::1]:7444")
    with override_settings(SNAKEPIT=settings):
        config = listen_config()
        assert (config.addresses, config.streams) == (("0.0.0.0:7443", "[::1]:7444"), 7)
        assert config.tls is not None
        assert config.tls.paths == ("/c", "/k", "/ca")
        assert config.certificates["web"].limits == conf.key_limits()
        assert conf.advertised() == ("gpu-1:7443",)


@pytest.mark.parametrize(
    ("snakepit", "name", "words"),
    [
        ({"LISTEN": ["x"]}, "", "error: bad_request: SNAKEPIT[\"LISTEN\"]: 'x' is not host:port"),
        ({"LISTEN_CERTIFICATES": {"web": {"scopes": ["fly"]}}}, "", "'fly' is not a scope; the scopes are"),
        ({}, "a,b", "--name: 'a,b' is not the name of a node"),
    ],
)
def test_a_broker_with_wrong_settings_does_not_start_and_names_them(
    snakepit: Any, name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with override_settings(SNAKEPIT=snakepit):
        conf.forget()
        assert run(["broker", *(["--name", name] if name else [])]) == 2
    assert words in capsys.readouterr().err


def test_the_name_of_a_node_in_the_environment_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAKEPIT_NODE_NAME", "a b")
    with override_settings(SNAKEPIT={}), pytest.raises(ImproperlyConfigured, match="SNAKEPIT_NODE_NAME: 'a b' is not"):
        conf.current()


def test_a_scope_that_does_not_exist_is_an_error_of_the_check() -> None:
    from snakepit.pools.checks import check_snakepit

    with override_settings(SNAKEPIT={"LISTEN_CERTIFICATES": {"web": {"scopes": ["run", "runs"]}}}):
        found = [str(one.msg) for one in check_snakepit() if one.id == "snakepit.E001"]
    (message,) = found
    assert message.startswith('SNAKEPIT["LISTEN_CERTIFICATES"]["web"]: scopes: ')
    assert "'runs' is not a scope; the scopes are run, view" in message
