"""The doctor's checklist and the advice; each piece of advice has a button that changes the pool's definition."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_GET

from snakepit.pools import conf
from snakepit.pools.broker.spec import spec_from, spec_values
from snakepit.pools.client import shared
from snakepit.pools.dashboard.access import VIEW, Rights, rights_of
from snakepit.pools.dashboard.confirm import Confirmation, ask
from snakepit.pools.dashboard.page import Visit, notify, page, show
from snakepit.pools.dashboard.snippets import api_url, curl, line
from snakepit.pools.diagnostics.advice import TOO_LITTLE, Advice, Judgement
from snakepit.pools.diagnostics.applying import apply as follow
from snakepit.pools.diagnostics.applying import definitions, judgements, settings_line
from snakepit.pools.diagnostics.finding import DoctorReport, Finding, FindingStatus
from snakepit.pools.diagnostics.latest import latest, latest_security
from snakepit.pools.operations.change_preview import ChangePreview, preview_change
from snakepit.pools.operations.orders import Order
from snakepit.pools.web.last_status import ask_in_time

WORST_FIRST = (FindingStatus.PROBLEM, FindingStatus.WARNING, FindingStatus.SKIPPED, FindingStatus.OK)


@page("diagnostics")
def diagnostics(request: HttpRequest, visit: Visit) -> HttpResponse:
    """The page without the report, which takes seconds: its script fetches that part."""
    url = api_url(request, "diagnostics")
    snippets = [*([line("curl", curl(url))] if url else []), line("shell", "snakepit doctor")]
    return show(request, visit, "snakepit/diagnostics.html", {"snippets": snippets})


@require_GET
async def report(request: HttpRequest) -> HttpResponse:
    """The checklist and the advice. The doctor takes seconds, so it does not run on the thread that all pages share."""
    rights = await sync_to_async(_rights)(request)
    if VIEW not in rights:
        return HttpResponse("Sign in again.", status=403, content_type="text/plain")
    of = ask_in_time, conf.broker_address()
    reports = [("Checks", await sync_to_async(latest, thread_sensitive=False)(*of))]
    if "configure" in rights:  # as over REST: it names files, hosts and users
        reports.append(("Security", await sync_to_async(latest_security, thread_sensitive=False)(*of)))
    return await sync_to_async(_checklist)(request, reports)


def _rights(request: HttpRequest) -> Rights:
    return rights_of(request.user)


@page("diagnostics")
def _checklist(request: HttpRequest, visit: Visit, reports: list[tuple[str, DoctorReport]]) -> HttpResponse:
    return show(request, visit, "snakepit/_diagnostics.html", _shown(visit, reports))


def _shown(visit: Visit, reports: list[tuple[str, DoctorReport]]) -> dict[str, Any]:
    found, status = judged(visit), visit.state().status
    return {
        "advised": status.node.name if status else "",
        "reports": [
            {
                "title": title,
                "report": report,
                "counts": report.counts,
                "groups": [(str(status), _of(report.findings, status)) for status in WORST_FIRST],
            }
            for title, report in reports
        ],
        "advice": [(one.advice, settings_line(one.advice)) for one in found if one.advice],
        "lacking": [one for one in found if one.verdict == TOO_LITTLE],
    }


def _of(findings: tuple[Finding, ...], status: FindingStatus) -> list[Finding]:
    return [one for one in findings if one.status == status]


def advice(visit: Visit) -> list[Advice]:
    """The present advice."""
    return [one.advice for one in judged(visit) if one.advice]


def judged(visit: Visit) -> list[Judgement]:
    status = visit.state().status
    return judgements(status) if status else []


@page("diagnostics", right="configure")
def apply(request: HttpRequest, visit: Visit, key: str) -> HttpResponse:
    """Show what applying the advice would do; then apply it, if it is still advised."""
    back = reverse("snakepit:diagnostics")
    one = next((found for found in advice(visit) if found.key == key), None)
    if one is None:
        notify(request, "This is no longer advised: the numbers have changed.", messages.WARNING)
        return redirect(back)
    if settings_line(one):
        notify(request, f"The settings define {one.pool}. Write there: {settings_line(one)}", messages.WARNING)
        return redirect(back)

    def action(order: Order) -> str:
        done = follow(shared.client(), key, order)
        return f"{one.pool} is changed{', in force' if done.in_force else ''}. {done.note}".strip()

    return ask(
        request, visit, Confirmation(f"{one.title}?", _consequences(one, visit), "Change the pool", back), action
    )


def _consequences(one: Advice, visit: Visit) -> tuple[str, ...]:
    rollout = _preview(one, visit)
    changes = "; ".join(f"{change.field}: {change.before} becomes {change.after}" for change in rollout.changes)
    time = "" if rollout.seconds is None else f"It takes about {max(1, round(rollout.seconds))} s."
    cost = f"Cost: {one.cost}." if one.cost else ""
    return tuple(text for text in (one.evidence, f"{changes}.", rollout.summary, time, cost) if text)


def _preview(one: Advice, visit: Visit) -> ChangePreview:
    before = definitions()[one.pool]
    after = spec_from({**spec_values(before), **one.values})
    return preview_change(before, after, visit.state().workers_of(one.pool))
