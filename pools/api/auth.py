"""Authentication of the REST API: an API key in a header, or a Django session with its CSRF token.

Both become a Caller with one set of permissions, so that routes need not distinguish them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.http import HttpRequest
from ninja.security import HttpBearer, SessionAuth
from ninja.utils import check_csrf

from snakepit.pools import conf, permissions
from snakepit.pools.broker.caller import CallerIdentity, Limits
from snakepit.pools.broker.errors import PermissionDenied, Unauthenticated
from snakepit.pools.models import ApiKey
from snakepit.pools.web.actor import address_of
from snakepit.pools.web.headers import csrf_header

NO_LIMITS = CallerIdentity("", "")


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller. `permissions` are codenames of the app; `pools` None means all pools."""

    actor: str
    permissions: frozenset[str]
    pools: frozenset[str] | None = None
    owner: str = ""  # the user name; jobs of this owner are the caller's own
    address: str = ""  # where the request came from
    key: int = 0  # of the row of an API key; 0: a session
    quota: CallerIdentity = NO_LIMITS  # the same caller, with its limits, for the broker and for jobs

    def check(self, permission: str, pool: str = "") -> None:
        """Raise PermissionDenied if this caller lacks the permission, or may not use the pool."""
        if permission not in self.permissions:
            scope = permissions.scope_of(permission)
            raise PermissionDenied(
                f"{self.actor} lacks the scope {scope!r} (permission snakepit_pools.{permission})",
                details={"scope": scope, "permission": f"snakepit_pools.{permission}"},
            )
        if pool:
            self.check_pool(pool)

    def check_pool(self, pool: str) -> None:
        """Raise PermissionDenied if this caller may not use the pool."""
        if not self.may_use(pool):
            message = f"{self.actor} may not use the pool {pool!r}: add it to the pools of the API key"
            raise PermissionDenied(message, details={"pool": pool})

    def allow(self, action: str, pool: str = "") -> None:
        """As `check`, for the permission of an action in `permissions.NEEDS`."""
        self.check(permissions.NEEDS[action], pool)

    def may_use(self, pool: str) -> bool:
        return self.pools is None or pool in self.pools

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
        return await sync_to_async(self.authenticate)(request, secret.strip())

    def authenticate(self, request: HttpRequest, token: str) -> Caller:
        key = ApiKey.find(token)
        if key is None:
            raise Unauthenticated("The API key is unknown, expired or revoked.")
        return caller_of_key(key, request)


class BrowserAuth(SessionAuth):
    """A signed-in user. Ninja exempts its views from Django's CSRF check, so this class checks the token."""

    async def __call__(self, request: HttpRequest) -> Caller | None:
        return await sync_to_async(self.authenticate)(request)

    def authenticate(self, request: HttpRequest, key: str | None = None) -> Caller | None:
        user: Any = getattr(request, "user", None)
        if user is None or not user.is_authenticated:
            return None
        if check_csrf(request) is not None:
            raise PermissionDenied(f"The CSRF token is missing or wrong: send it as the header {csrf_header()}.")
        return caller_of_user(user, request)


def caller_of_key(key: ApiKey, request: HttpRequest) -> Caller:
    """The caller with this usable key. Records its use."""
    key.touch()
    return Caller(
        f"key {key.name} (snk_{key.prefix})",
        key.permissions,
        frozenset(key.pools) or None,
        key.owner.get_username(),
        address_of(request),
        key.pk,
        quota_of(key.owner.get_username(), key),
    )


def caller_of_user(user: Any, request: HttpRequest) -> Caller:
    name = user.get_username()
    return Caller(f"user {name}", permissions.of(user), owner=name, address=address_of(request), quota=quota_of(name))


def quota_of(owner: str, key: ApiKey | None = None) -> CallerIdentity:
    """The limits of a key and of its owner."""
    settings = conf.current()
    own = (key.visible, key.all_limits) if key else ("", Limits())
    return CallerIdentity(own[0], owner, own[1], conf.owner_limits(), settings.key_share, settings.owner_share)


def requester_of(request: HttpRequest) -> Caller:
    """The caller of the API, or the signed-in user of a page. Reads the database."""
    found = getattr(request, "auth", None)
    return found if isinstance(found, Caller) else caller_of_user(request.user, request)


def caller(request: HttpRequest) -> Caller:
    found: Caller = request.auth  # type: ignore[attr-defined]
    return found
