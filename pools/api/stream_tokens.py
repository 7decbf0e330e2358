"""Short-lived tokens for `EventSource`, which can send no header: a signed query parameter for the stream of one job.

    POST /stream-tokens ─▶ {job, key or user}, signed ─▶ GET /jobs/{job_id}/events?token=... ─▶ Caller

A token has no rights of its own. The key or user has to be usable, and to have the rights, when the stream opens and
while it is open. The token is removed from the request before anything can log it.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, cast

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.core import signing
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from ninja.security import APIKeyQuery

from snakepit.pools.api.auth import Caller, caller_of_key, caller_of_user
from snakepit.pools.broker.errors import Unauthenticated
from snakepit.pools.models import ApiKey

SECONDS = 60  # to open the stream; it may stay open for longer
LONGEST = 1000  # characters of a token
SALT = "snakepit.stream-token"
PARAMETER = "token"


@dataclass(frozen=True, slots=True)
class Bearer:
    """What a token is for: the stream of a job, for a key, or for a user without one."""

    job: str
    key: int
    owner: str

    def token(self) -> str:
        return signing.dumps([self.job, self.key, self.owner], salt=SALT)

    @classmethod
    def read(cls, token: str) -> Bearer | None:
        """The content of a valid token; None: it is wrong or expired."""
        try:
            return cls(*signing.loads(token[: LONGEST + 1], salt=SALT, max_age=SECONDS))
        except signing.BadSignature:
            return None

    def caller(self, request: HttpRequest) -> Caller | None:
        """The key or user with its rights of now; None: it is not usable any more. Reads the database."""
        if self.key:
            key = ApiKey.objects.select_related("owner").filter(pk=self.key).first()
            return caller_of_key(key, request) if key is not None and key.usable else None
        model = get_user_model()
        user = model.objects.filter(**{model.USERNAME_FIELD: self.owner}).first()
        return caller_of_user(user, request) if user is not None and user.is_active else None


class StreamTokenAuth(APIKeyQuery):
    """`?token=...`, for the stream of the job that the token is for. A wrong one is rejected, without a fallback."""

    param_name = PARAMETER

    async def __call__(self, request: HttpRequest) -> Caller | None:
        token = request.GET.get(PARAMETER)
        if token is None:
            return None
        _hide(request)
        return await sync_to_async(self.authenticate)(request, token)

    def authenticate(self, request: HttpRequest, key: str | None) -> Caller:
        bearer = Bearer.read(key or "")
        found = bearer.caller(request) if bearer is not None and bearer.job == _job_of(request) else None
        if found is None:
            message = f"The stream token is wrong, for another job, or older than {SECONDS} seconds."
            raise Unauthenticated(f"{message} POST /stream-tokens returns a new one.")
        return found


def _job_of(request: HttpRequest) -> str:
    match = request.resolver_match
    try:
        return str(uuid.UUID(match.kwargs["job_id"])) if match else ""
    except ValueError:
        return ""


def _hide(request: HttpRequest) -> None:
    """Take the token out of all that a log line or an error report may show, also of the server's access log."""
    query = request.GET.copy()
    del query[PARAMETER]
    request.GET = query  # type: ignore[assignment]
    text = query.urlencode()
    meta = request.META
    meta["QUERY_STRING"] = text
    for name in ("RAW_URI", "REQUEST_URI"):
        if name in meta:
            meta[name] = meta[name].partition("?")[0]
    if isinstance(request, ASGIRequest):
        cast(dict[str, Any], request.scope)["query_string"] = text.encode()
