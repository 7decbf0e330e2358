"""Authentication of the REST API: an API key in a header, or a Django session with its CSRF token.

Both become a Caller with one set of permissions, so that routes need not distinguish them.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.http import HttpRequest
from ninja.security import HttpBearer, SessionAuth
from ninja.utils import check_csrf

from snakepit.pools import permissions
from snakepit.pools.broker.caller import CallerIdentity
from snakepit.pools.broker.errors import PermissionDenied, Unauthenticated
from snakepit.pools.jobs.leases import db_unit
from snakepit.pools.models import ApiKey, known_keys
from snakepit.pools.models.apikey import SECRET, quota_of
from snakepit.pools.web import away
from snakepit.pools.web.actor import address_of
from snakepit.pools.web.headers import csrf_header

NO_LIMITS = CallerIdentity("", "")


@dataclass(frozen=True, slots=True)
class Caller(permissions.Rights):
    """An authenticated caller."""

    owner: str = ""  # the user name; jobs of this owner are the caller's own
    address: str = ""  # where the request came from
    key: int = 0  # of the row of an API key; 0: a session
    quota: CallerIdentity = NO_LIMITS  # the same caller, with its limits, for the broker and for jobs

    def still_allowed(self) -> bool:
        """Whether the key or user of this caller still has these rights; for responses that stay open."""
        if self.key:
            key = ApiKey.objects.select_related("owner").filter(pk=self.key).first()
            if key is None or not key.usable or (frozenset(key.pools) or None) != self.pools:
                return False
            return self.permissions <= key.permissions
        model = get_user_model()
        user = model.objects.filter(**{model.USERNAME_FIELD: self.owner}).first()
        return user is not None and self.permissions <= permissions.of(user)

    def sees_payload(self, owner: str) -> bool:
        """Whether this caller may see arguments, result and output of a job of this owner."""
        return "view_payload" in self.permissions or (owner == self.owner and "run_command" in self.permissions)


class KeyAuth(HttpBearer):
    """`Authorization: Bearer snk_...`. A wrong key is rejected, without a fallback to the session."""

    async def __call__(self, request: HttpRequest) -> Caller | None:
        header = request.headers.get("Authorization")
        if header is None:
            return None
        scheme, _, secret = header.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("The Authorization header must be `Bearer snk_...`.")
        secret = secret.strip()
        if known := known_keys.find(secret):
            return _caller_of(known.key, known.permissions, request)
        return await sync_to_async(self._authenticate)(request, secret)

    def _authenticate(self, request: HttpRequest, secret: str) -> Caller:
        asking = away.asking() if SECRET.fullmatch(secret) else nullcontext()
        with db_unit(), asking:  # the thread may be of this request alone
            return self.authenticate(request, secret)

    def authenticate(self, request: HttpRequest, token: str) -> Caller:
        known = read_key(token)
        return _caller_of(known.key, known.permissions, request)


class BrowserAuth(SessionAuth):
    """A signed-in user. Ninja exempts its views from Django's CSRF check, so this class checks the token."""

    async def __call__(self, request: HttpRequest) -> Caller | None:
        return await sync_to_async(self.authenticate)(request)

    def authenticate(self, request: HttpRequest, key: str | None = None) -> Caller | None:
        user: Any = getattr(request, "user", None)
        with away.asking() if away.has_session(request) else nullcontext():
            if user is None or not user.is_authenticated:
                return None
        if check_csrf(request) is not None:
            raise PermissionDenied(f"The CSRF token is missing or wrong: send it as the header {csrf_header()}.")
        return caller_of_user(user, request)


def read_key(secret: str) -> known_keys.KnownKey:
    """The key with this secret, which is known from now on. Records its use."""
    since = time.monotonic()
    key = ApiKey.find(secret)
    if key is None:
        raise Unauthenticated("The API key is unknown, expired or revoked.")
    key.touch()
    return known_keys.keep(secret, key, since)


def caller_of_key(key: ApiKey, request: HttpRequest) -> Caller:
    """The caller with this usable key. Records its use."""
    key.touch()
    return _caller_of(key, key.permissions, request)


def _caller_of(key: ApiKey, granted: frozenset[str], request: HttpRequest) -> Caller:
    return Caller(
        f"key {key.name} (snk_{key.prefix})",
        granted,
        frozenset(key.pools) or None,
        key.owner.get_username(),
        address_of(request),
        key.pk,
        quota_of(key.owner.get_username(), key),
    )


def caller_of_user(user: Any, request: HttpRequest) -> Caller:
    name = user.get_username()
    return Caller(f"user {name}", permissions.of(user), owner=name, address=address_of(request), quota=quota_of(name))


def requester_of(request: HttpRequest) -> Caller:
    """The caller of the API, or the signed-in user of a page. Reads the database."""
    found = getattr(request, "auth", None)
    return found if isinstance(found, Caller) else caller_of_user(request.user, request)


def caller(request: HttpRequest) -> Caller:
    found: Caller = request.auth  # type: ignore[attr-defined]
    return found
