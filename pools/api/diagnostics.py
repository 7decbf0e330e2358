"""The doctor's checklist for monitoring, compatibility, advice and scaling."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections
from django.http import HttpRequest, HttpResponse
from ninja import Router
from ninja.params import functions

from snakepit.pools import conf
from snakepit.pools.api.auth import Caller, caller
from snakepit.pools.api.calls import json_response
from snakepit.pools.api.diagnostics_schemas import CompatOut, RecommendationsOut, ReportOut, ScalingOut
from snakepit.pools.api.schemas import Failure
from snakepit.pools.broker.errors import PoolUnknown
from snakepit.pools.compat.ask import of_pool
from snakepit.pools.compat.report import Report
from snakepit.pools.diagnostics.advice import Advice
from snakepit.pools.diagnostics.applying import judgements, settings_line
from snakepit.pools.diagnostics.finding import DoctorReport, FindingStatus
from snakepit.pools.diagnostics.latest import latest, latest_security
from snakepit.pools.diagnostics.machine import room_here
from snakepit.pools.diagnostics.scaling import ScalingEstimate, gather, scale
from snakepit.pools.models import Pool
from snakepit.pools.models.strict_json import scrub
from snakepit.pools.web.last_status import ask_in_time

router = Router(tags=["diagnostics"])
REFUSED = frozenset({401, 403, 503})
WORD = re.compile(r"[A-Za-z0-9_-]+")


@router.get("/diagnostics", response={200: ReportOut, REFUSED: Failure}, operation_id="diagnostics", summary="Doctor")
async def diagnostics(request: HttpRequest) -> HttpResponse:
    """Findings with evidence and fix; `at` is the time of the report, which is kept for ten seconds. Starts nothing."""
    identity = caller(request)
    identity.check("view_pool")
    identity.check("view_node")
    report = await sync_to_async(latest, thread_sensitive=False)(ask_in_time, conf.broker_address())
    return await _answer(identity, report)


@router.get(
    "/diagnostics/security",
    response={200: ReportOut, REFUSED: Failure},
    operation_id="security",
    summary="Security checks",
)
async def security(request: HttpRequest) -> HttpResponse:
    """What protects the running service, as `snakepit doctor --security` of the web process's user; kept for ten
    seconds."""
    identity = caller(request)
    identity.check("change_pool")
    identity.check("view_node")
    report = await sync_to_async(latest_security, thread_sensitive=False)(ask_in_time, conf.broker_address())
    return await _answer(identity, report)


async def _answer(identity: Caller, report: DoctorReport) -> HttpResponse:
    """The findings that this caller may see."""
    findings = [one for one in report.findings if not one.pool or identity.may_use(one.pool)]
    if identity.pools is not None:
        others = await sync_to_async(_other_pools)(identity.pools, report)
        findings = [one for one in findings if not others & set(WORD.findall(f"{one.evidence} {one.fix}"))]
    counts = {str(status): sum(one.status == status for one in findings) for status in FindingStatus}
    shown: dict[str, Any] = {
        "node": report.node,
        "at": report.at,
        "seconds": report.seconds,
        "healthy": not counts[FindingStatus.PROBLEM],
        "counts": counts,
        "findings": [asdict(one) for one in findings],
    }
    return json_response(ReportOut(**scrub(shown)).model_dump(mode="json"))


def _other_pools(mine: frozenset[str], report: DoctorReport) -> set[str]:
    """The names of pools that a key may not use: a finding about the node may name them."""
    known = {*Pool.objects.values_list("name", flat=True), *(one.pool for one in report.findings if one.pool)}
    return known - mine


@router.get(
    "/diagnostics/compat",
    response={200: CompatOut, REFUSED | {400, 404}: Failure},
    operation_id="compat",
    summary="Libraries of a pool",
)
async def compat(request: HttpRequest, pool: str = functions.Query(max_length=48)) -> HttpResponse:
    """Which libraries of a pool's interpreter are safe for its profile: by table, metadata and observations."""
    identity = caller(request)
    identity.check("view_pool", pool)
    identity.check("view_worker", pool)
    found = await sync_to_async(_compat, thread_sensitive=False)(pool)
    return json_response(CompatOut(**found.plain()).model_dump(mode="json"))


def _compat(pool: str) -> Report:
    """Close the connection: this thread belongs to no request, so Django would leave it open."""
    try:
        return of_pool(pool, ask_in_time)
    finally:
        connections.close_all()


@router.get(
    "/diagnostics/recommendations",
    response={200: RecommendationsOut, REFUSED | {400, 404}: Failure},
    operation_id="recommendations",
    summary="Advice",
)
async def recommendations(request: HttpRequest, pool: str = functions.Query("", max_length=48)) -> HttpResponse:
    """The judgement of each rule on each pool, from the last ten minutes; advice has its exact change."""
    identity = caller(request)
    identity.check("view_pool", pool)
    identity.check("view_worker", pool)
    found = await sync_to_async(_recommendations)(pool)
    kept = [one for one in found["judgements"] if identity.may_use(one["pool"])]
    advised = [one for one in found["recommendations"] if identity.may_use(one["pool"])]
    shown = RecommendationsOut(recommendations=advised, judgements=kept)
    return json_response(shown.model_dump(mode="json", by_alias=True))


def _recommendations(pool: str) -> dict[str, Any]:
    found = judgements(ask_in_time(pool))
    return {
        "recommendations": [_advice(one.advice) for one in found if one.advice],
        "judgements": [
            {"rule": one.rule, "pool": one.pool, "verdict": one.verdict, "evidence": one.evidence} for one in found
        ],
    }


@router.get(
    "/diagnostics/scaling",
    response={200: ScalingOut, REFUSED | {400, 404}: Failure},
    operation_id="scaling",
    summary="Scaling estimate",
)
async def scaling(request: HttpRequest, pool: str = functions.Query(max_length=48)) -> HttpResponse:
    """The calls a second and workers that the broker's machine can carry for a pool, and the limit that binds first."""
    identity = caller(request)
    identity.check("view_pool", pool)
    identity.check("view_worker", pool)
    identity.check("view_node")
    found = await sync_to_async(_scaling, thread_sensitive=False)(pool)
    return json_response(ScalingOut(**found.plain()).model_dump(mode="json"))


def _scaling(pool: str) -> ScalingEstimate:
    status = ask_in_time()
    if status.pool(pool) is None:
        raise PoolUnknown(f"No pool is named {pool!r}.", details={"pool": pool})
    return scale(gather(status, pool, room_here(conf.broker_address(), status.node.pid)))


def _advice(advice: Advice) -> dict[str, Any]:
    plain = advice.plain()
    changes = [{"field": one["field"], "before": one["from"], "to": one["to"]} for one in plain["changes"]]
    return {**plain, "changes": changes, "settings_line": settings_line(advice)}
