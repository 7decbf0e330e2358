"""The key or user that a request comes from, before its body is read and before Django has it.

    Authorization  ─▶ a key that is known, else one lookup          ─▶ "key 12"
    ?token=        ─▶ the signature of a stream token               ─▶ "key 12" or "user ada"
    session cookie ─▶ a session that is known, else one lookup      ─▶ "user ada"
    none, or wrong ─▶ the client's address                          ─▶ "address 10.0.0.1": not proven

An identity decides with which requests another one shares turns and memory, never what it may do: each view
authenticates its caller by itself. So a lookup that fails, or takes long, makes a request not proven, and no more.
A key or session that is in use is known: a flood of wrong ones, each of which costs a lookup, does not delay it.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import logging
import time
from collections import Counter
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user_model
from django.db import Error
from django.http import parse_cookie

from snakepit.pools import conf, proxies
from snakepit.pools.api.auth import read_key
from snakepit.pools.api.stream_tokens import PARAMETER, Bearer
from snakepit.pools.api.turns import Turns
from snakepit.pools.broker.errors import Unauthenticated
from snakepit.pools.jobs.leases import db_unit
from snakepit.pools.models import known_keys
from snakepit.pools.models.apikey import SECRET
from snakepit.pools.web import away

KEPT = 60.0  # seconds for which a key or session stays known
MOST = 10_000  # known sessions
LOOKUP_SECONDS = 1.0  # for one lookup
MOST_LOOKUPS = 20  # that wait, of one address
AWAY_SECONDS = 2.0  # without lookups, after one that the database did not answer
FIELD = "snakepit.identity"  # of the scope of a request
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"

Scope = MutableMapping[str, Any]
logger = logging.getLogger("snakepit.api")


@dataclass(frozen=True, slots=True)
class Identity:
    """Where a request comes from. `proven`: by a key, a token or a session, else the name is an address."""

    name: str
    proven: bool


class _Lookups:
    """The lookups that wait or run on one event loop."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.pending: dict[bytes, asyncio.Task[str]] = {}  # by what is looked up: many requests come together
        self.waiting: Counter[str] = Counter()  # by address


class Identities:
    """The identities of requests in this process."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, tuple[str, float]] = {}  # the name of the user, and until when it is known
        self._away_until = 0.0  # the database did not answer: no lookups before this time
        self._lookups: WeakKeyDictionary[asyncio.AbstractEventLoop, _Lookups] = WeakKeyDictionary()

    async def of(self, scope: Scope) -> Identity:
        """The identity of a request; once for each request."""
        found: Identity | None = scope.get(FIELD)
        if found is None:
            name = await self._prove(scope)
            found = scope[FIELD] = Identity(name or f"address {source_of(scope)}", bool(name))
        return found

    async def _prove(self, scope: Scope) -> str:
        given = _texts(scope, b"authorization")
        if given:
            scheme, _, secret = ",".join(given).partition(" ")
            secret = secret.strip()
            if scheme.lower() != "bearer" or not SECRET.fullmatch(secret):
                return ""
            # An active key never waits here: its views look it up again and again.
            if known := known_keys.find(secret, KEPT):
                return f"key {known.key.pk}"
            return await self._find(scope, secret, lambda: _key(secret))
        query = scope.get("query_string", b"")
        if f"{PARAMETER}=".encode() in query and scope["path"].endswith("/events"):
            return _bearer(query)
        cookies = _texts(scope, b"cookie")
        if not cookies or SESSIONS not in settings.MIDDLEWARE:
            return ""
        session = parse_cookie("; ".join(cookies)).get(settings.SESSION_COOKIE_NAME, "")
        if not session:
            return ""
        return self._known(session) or await self._find(scope, session, lambda: self._session(session))

    async def _find(self, scope: Scope, secret: str, read: Callable[[], str]) -> str:
        """Look a key or session up, once for all requests that wait for it."""
        lookups, source, mark = self._lookups_here(), source_of(scope), _mark(secret)
        task = lookups.pending.get(mark)
        if task is None:
            if lookups.waiting[source] >= MOST_LOOKUPS:
                return ""  # wrong keys in a flood; the view of this request looks its key up by itself
            lookups.waiting[source] += 1
            task = lookups.pending[mark] = asyncio.create_task(self._read(lookups, source, mark, read))
        return await asyncio.shield(task)

    async def _read(self, lookups: _Lookups, source: str, mark: bytes, read: Callable[[], str]) -> str:
        await lookups.turns.enter(source)
        try:
            if away.frozen.lasts or time.monotonic() < self._away_until:
                return ""
            return await asyncio.wait_for(sync_to_async(_in_unit, thread_sensitive=False)(read), LOOKUP_SECONDS)
        except (Error, TimeoutError):
            self._away_until = time.monotonic() + AWAY_SECONDS
            return ""
        except Exception:
            # A session may be stored anywhere. The view meets the same error and reports it.
            logger.debug("the caller of a request cannot be looked up", exc_info=True)
            return ""
        finally:
            del lookups.pending[mark]
            lookups.waiting[source] -= 1
            if not lookups.waiting[source]:
                del lookups.waiting[source]
            lookups.turns.leave(source)

    def _lookups_here(self) -> _Lookups:
        loop = asyncio.get_running_loop()
        found = self._lookups.get(loop)
        if found is None:
            found = self._lookups[loop] = _Lookups()
        return found

    def _known(self, session: str) -> str:
        name, until = self._sessions.get(_mark(session), ("", 0.0))
        return name if time.monotonic() < until else ""

    def _session(self, session: str) -> str:
        user = _user_of(session)
        if not user:
            return ""
        if len(self._sessions) >= MOST:
            self._sessions.clear()
        name = f"user {user}"
        self._sessions[_mark(session)] = name, time.monotonic() + KEPT
        return name


def source_of(scope: Scope) -> str:
    """The client's address as the named proxies give it; of IPv6 the network of a site, which has many addresses."""
    client = scope.get("client") or ("",)
    trusted = conf.current().trusted_proxies
    peer = str(client[0] or "")
    if trusted:
        peer = proxies.client_of(peer, ",".join(_texts(scope, b"x-forwarded-for")), trusted)
    address = proxies.parse(peer)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address or "")


def _texts(scope: Scope, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]


def _key(secret: str) -> str:
    try:
        return f"key {read_key(secret).key.pk}"
    except Unauthenticated:
        return ""


def _bearer(query: bytes) -> str:
    token = parse_qs(query.decode("latin-1")).get(PARAMETER, [""])[-1]
    bearer = Bearer.read(token)
    if bearer is None:
        return ""
    return f"key {bearer.key}" if bearer.key else f"user {bearer.owner}"


def _user_of(session: str) -> str:
    """The name of the active user of a session. Not Django's `get_user`, which may change the session's key."""
    stored = import_module(settings.SESSION_ENGINE).SessionStore(session).get(SESSION_KEY)
    if stored is None:
        return ""
    model = get_user_model()
    user = model.objects.filter(pk=model._meta.pk.to_python(stored)).first()
    return user.get_username() if user is not None and user.is_active else ""


def _in_unit(read: Callable[[], str]) -> str:
    with db_unit():
        return read()


def _mark(secret: str) -> bytes:
    """The secret itself is not kept in memory."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


identities = Identities()
