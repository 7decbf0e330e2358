"""GET /keys/me: what the caller may do, its limits, and what it uses of them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from ninja import Field, Router, Schema

from snakepit.pools.api.auth import Caller, caller
from snakepit.pools.api.calls import json_response
from snakepit.pools.api.open_streams import open_streams
from snakepit.pools.api.schemas import Failure
from snakepit.pools.broker.caller import Limits, QuotaStatus
from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.status import as_json
from snakepit.pools.client import shared
from snakepit.pools.jobs.room import use_of
from snakepit.pools.models import ApiKey, Job
from snakepit.pools.models.states import QUEUED
from snakepit.pools.web.errors import seen_from_outside

router = Router(tags=["keys"])


class Use(Schema):
    used: int
    limit: float


class KeyOut(Schema):
    key: str = Field(description="The visible part of the API key; empty: a session.")
    owner: str
    permissions: list[str] = Field(description="What the scopes grant and the owner may do now.")
    pools: list[str] | None = Field(description="null: all pools.")
    expires_at: datetime | None
    limits: dict[str, Limits] = Field(description="Of the `key` and of its `owner`; 0: no limit.")
    calls: list[QuotaStatus] = Field(description="What the broker counted since its start.")
    streams: dict[str, int] = Field(description="Open streams in this web process.")
    jobs: dict[str, dict[str, Use]] = Field(description="Queued jobs, by pool: use and limit by number and bytes.")
    broker: str = Field(description="reachable, or the reason why not")


@router.get(
    "/keys/me",
    response={200: KeyOut, frozenset({401, 403, 503}): Failure},
    operation_id="my_key",
    summary="The caller's own key: rights, limits and use",
)
async def my_key(request: HttpRequest) -> HttpResponse:
    requester = caller(request)
    calls, broker = await _calls(requester)
    expires_at, jobs = await sync_to_async(_stored)(requester)
    return json_response(
        {
            "key": requester.quota.key,
            "owner": requester.owner,
            "permissions": sorted(requester.permissions),
            "pools": None if requester.pools is None else sorted(requester.pools),
            "expires_at": expires_at,
            "limits": {kind: asdict(limits) for kind, _, limits, _ in requester.quota.scopes()},
            "calls": calls,
            "streams": {kind: open_streams.count(kind, requester) for kind, *_ in requester.quota.scopes()},
            "jobs": jobs,
            "broker": broker,
        }
    )


async def _calls(requester: Caller) -> tuple[list[dict[str, Any]], str]:
    mine = set(requester.quota.names)
    try:
        status = await shared.client().astatus()
    except BrokerError as error:
        return [], seen_from_outside(error).message
    return [as_json(one) for one in status.quotas if (one.of, one.name) in mine], "reachable"


def _stored(requester: Caller) -> tuple[str | None, dict[str, Any]]:
    key = ApiKey.objects.filter(pk=requester.key).first() if requester.key else None
    names = Job.objects.filter(owner=requester.owner, state=QUEUED).order_by("pool").values_list("pool", flat=True)
    pools = [name for name in names.distinct()[:100] if requester.may_use(name)]
    expires = key.expires_at.isoformat() if key and key.expires_at else None
    return expires, {name: use_of(name, requester.quota) for name in pools}
