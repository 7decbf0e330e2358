"""Who calls the API, and what for: an API key in a header, or a Django session with its CSRF token.

Both become a Caller with the same set of permissions, so that a route asks one question and not two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest
from ninja.security import HttpBearer, SessionAuth
from ninja.utils import check_csrf

from pools.broker.errors import PermissionDenied, Unauthenticated
from pools.models import ApiKey

VIEW = frozenset({"view_pool", "view_worker", "view_event", "view_node"})
OF_SCOPE = {"run": frozenset({"run_command"}), "view": VIEW, "operate": frozenset({"operate_pool"})}
ALL = frozenset().union(*OF_SCOPE.values())


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller: `permissions` are codenames of the app; `pools` None means every pool."""

    actor: str
    permissions: frozenset[str]
    pools: frozenset[str] | None = None
    owner: str = ""  # the user's name: whose jobs are this caller's own

    def check(self, permission: str, pool: str = "") -> None:
        """Raises PermissionDenied where this caller may not do this, at all or to this pool."""
        if permission not in self.permissions:
            scope = next(scope for scope, names in OF_SCOPE.items() if permission in names)
            raise PermissionDenied(
                f"{self.actor} lacks the scope {scope!r} (permission snakepit_pools.{permission})",
                details={"scope": scope, "permission": f"snakepit_pools.{permission}"},
            )
        if pool and not self.may_use(pool):
            raise PermissionDenied(f"{self.actor} may not use the pool {pool!r}", details={"pool": pool})

    def may_use(self, pool: str) -> bool:
        return self.pools is None or pool in self.pools


class KeyAuth(HttpBearer):
    """`Authorization: Bearer snk_...`. A wrong key is refused; it never falls back to a session."""

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
        key.touch()
        granted = frozenset().union(*(OF_SCOPE.get(scope, frozenset()) for scope in key.scopes))
        return Caller(
            f"key {key.name} (snk_{key.prefix})", granted, frozenset(key.pools) or None, key.owner.get_username()
        )


class BrowserAuth(SessionAuth):
    """A signed-in user. All of ninja's views are exempt from Django's CSRF check, so it is made here."""

    async def __call__(self, request: HttpRequest) -> Caller | None:
        return await sync_to_async(self.authenticate)(request)

    def authenticate(self, request: HttpRequest, key: str | None = None) -> Caller | None:
        user: Any = getattr(request, "user", None)
        if user is None or not user.is_authenticated:
            return None
        if check_csrf(request) is not None:
            raise PermissionDenied("The CSRF token is missing or wrong: send it as the header X-CSRFToken.")
        granted = frozenset(name for name in ALL if user.has_perm(f"snakepit_pools.{name}"))
        return Caller(f"user {user.get_username()}", granted, owner=user.get_username())


def caller(request: HttpRequest) -> Caller:
    found: Caller = request.auth  # type: ignore[attr-defined]
    return found
