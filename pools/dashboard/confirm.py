"""The page before an order: what will happen, why, and the way back. And who gives the order, for the audit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.status import RecyclePlan
from snakepit.pools.dashboard.page import Visit, show
from snakepit.pools.operations.orders import MAX_REASON, Order
from snakepit.pools.web.actor import order_of
from snakepit.pools.web.errors import seen_from_outside


@dataclass(frozen=True, slots=True)
class Confirmation:
    """`says` are sentences about what will happen; `back` is where both answers lead that change nothing."""

    title: str
    says: Sequence[str]
    button: str
    back: str
    danger: bool = False
    plan: RecyclePlan | None = None  # the workers that will be replaced, as the broker plans it
    size: int | None = None  # asked for as well, if given
    trouble: str = ""  # why it could not be done, the last time it was asked


Action = Callable[[Order], str | HttpResponse]  # returns what is told then, or where to go instead


def ask(
    request: HttpRequest, visit: Visit, question: Confirmation, action: Action, snippets: Sequence[dict[str, str]] = ()
) -> HttpResponse:
    """GET: the page that asks. POST to the same URL is the answer and may bring a `reason`: the deed, then back.

    What the broker refuses is told on the same page, with the reason still there.
    """
    status = 200
    if request.method == "POST":
        try:
            done = action(order_of(request, reason(request), "dashboard"))
            visit.look_again()
            if isinstance(done, HttpResponse):
                return done
            messages.success(request, done)
            return redirect(question.back)
        except BrokerError as error:
            question, status = replace(question, trouble=seen_from_outside(error).message), error.http_status
    context = {"question": question, "longest": MAX_REASON, "reason": reason(request), "snippets": snippets}
    return show(request, visit, "snakepit/confirm.html", context, status)


def reason(request: HttpRequest) -> str:
    return request.POST.get("reason", "").replace("\0", "").strip()[:MAX_REASON]
