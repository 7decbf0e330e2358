"""The confirmation page of an order: its consequences, a field for the reason, and a way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.dashboard.page import Visit, notify, show
from snakepit.pools.operations.orders import MAX_REASON, Order
from snakepit.pools.operations.pool_nodes import NodePlan
from snakepit.pools.web.actor import order_of
from snakepit.pools.web.errors import seen_from_outside


@dataclass(frozen=True, slots=True)
class Confirmation:
    """`consequences` are sentences about what will happen; `back` is the page to return to."""

    title: str
    consequences: Sequence[str]
    button: str
    back: str
    danger: bool = False
    plans: Sequence[NodePlan] = ()  # the workers that each node would replace
    size: int | None = None  # a field for it is shown, if given
    trouble: str = ""  # why the last try failed


Action = Callable[[Order], str | HttpResponse]  # returns a message, or a response to send instead


def ask(
    request: HttpRequest, visit: Visit, question: Confirmation, action: Action, snippets: Sequence[dict[str, str]] = ()
) -> HttpResponse:
    """GET shows the page; POST to the same URL, with an optional `reason`, runs the action and goes back.

    If the broker refuses, the same page shows why and keeps the reason.
    """
    status = 200
    if request.method == "POST":
        try:
            done = action(order_of(request, reason(request), "dashboard"))
            visit.refresh()
            if isinstance(done, HttpResponse):
                return done
            notify(request, done)
            return redirect(question.back)
        except BrokerError as error:
            question, status = replace(question, trouble=seen_from_outside(error).message), error.http_status
    context = {"question": question, "longest": MAX_REASON, "reason": reason(request), "snippets": snippets}
    return show(request, visit, "snakepit/confirm.html", context, status)


def reason(request: HttpRequest) -> str:
    return request.POST.get("reason", "").replace("\0", "").strip()[:MAX_REASON]
