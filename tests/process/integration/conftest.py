"""Shared by the floor where Django meets a database and the broker is a fake."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import SyncToAsync, sync_to_async
from django.core.signals import setting_changed
from django.db import connections
from django.dispatch import receiver

from snakepit.pools import conf
from snakepit.pools.api import identities
from snakepit.pools.client import shared
from snakepit.pools.diagnostics import transport_watch
from snakepit.pools.jobs import commands, eager, reconciler
from snakepit.pools.models import ApiKey
from snakepit.pools.web import away
from snakepit.pools.web.last_status import last_status
from tests.process.integration.fakes import FakeClient

ADAPTERS = {"digits": "snakepit.examples.digits.Digits", "primes": "snakepit.examples.primes.Primes"}


@pytest.fixture(autouse=True)
def snakepit(settings: Any) -> Any:
    """The settings of Snakepit that these tests begin with; a test sets its own with `settings.SNAKEPIT = {...}`."""
    settings.SNAKEPIT = {"ADAPTERS": ADAPTERS, "NODE_NAME": "node-1"}
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the real one takes half a second
    yield settings
    conf.forget()
    last_status.forget()


@pytest.fixture(autouse=True)
def known_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has run for long, and in which no test has set the clock: it may judge leases."""
    known = reconciler.ClockJumps()
    known.leases_unreliable(time.monotonic() - 1e6, time.time() - 1e6, 0.0)
    monkeypatch.setattr(reconciler, "clock_jumps", known)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds of a second that pass while a machine stops, though the thing lives.

    A submission goes unchecked without the commands of its pool, and a request is refused without its key's rights. An
    eager job that no broker accepts stays queued. Tests of these bounds set their own.
    """
    monkeypatch.setattr(commands, "cache", commands.CommandCache(patience=60.0))
    monkeypatch.setattr(identities, "LOOKUP_SECONDS", 60.0)
    monkeypatch.setattr(eager, "PATIENCE", 60.0)


@pytest.fixture(autouse=True)
def no_transport_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages ask no message transport: the thread that does may outlive its test."""
    monkeypatch.setattr(transport_watch, "ask_transport", lambda: "")


@pytest.fixture(autouse=True)
def no_frozen_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stops for a second makes no error of a test one of a frozen database."""
    monkeypatch.setattr(away, "frozen", away.FrozenDatabase())
    monkeypatch.setattr(away, "SLOW", float("inf"))


_naive: list[bool] = []  # whether a test has changed USE_TZ


@receiver(setting_changed)
def _note_naive(setting: str, **_: Any) -> None:
    if setting == "USE_TZ":
        _naive.append(True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Django applies USE_TZ when it opens a connection to PostgreSQL. The next test must not read by the old one.

    A thread that lives on has a connection of its own, and that keeps its time zone also when it opens again.
    """
    try:
        return (yield)
    finally:
        if _naive:
            _naive.clear()
            connections.close_all()
            SyncToAsync.single_thread_executor.submit(_forget_connections).result()


def _forget_connections() -> None:
    for alias in connections:
        connections[alias].close()
        del connections[alias]


@pytest.fixture(autouse=True)
def borrowed_thread() -> Iterator[None]:
    """Close the connection of the thread that async code borrows, also the streams of a synchronous test.

    PostgreSQL drops no database in use, and the connection keeps the time zone of the test that opened it.
    """
    yield
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """The fake that the whole web side talks to."""
    fake = FakeClient()
    monkeypatch.setattr(shared, "client", lambda: fake)
    return fake


@pytest.fixture
def amake_key(make_key: Callable[..., str]) -> Callable[[], Awaitable[str]]:
    """As make_key, for an event loop. The thread that it borrows keeps no connection."""

    def make() -> str:
        try:
            return make_key()
        finally:
            connections.close_all()

    return sync_to_async(make)


@pytest.fixture
def make_key(django_user_model: Any, db: None) -> Callable[..., str]:
    """Makes a user with an API key; returns its Authorization header."""

    def make(*scopes: str, **options: Any) -> str:
        owner, _ = django_user_model.objects.get_or_create(username="ada", defaults={"is_superuser": True})
        _, secret = ApiKey.create(name="test", owner=owner, scopes=scopes or ("run", "view", "operate"), **options)
        return f"Bearer {secret}"

    return make
