"""The page before an order: what will happen, why, and the way back. And who gives the order, for the audit."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse

from pools.api.auth import order_of
from pools.dashboard.page import Visit, show
from pools.operations import MAX_REASON, Order


@dataclass(frozen=True, slots=True)
class Question:
    """`says` are sentences about what will happen; `back` is where both answers lead that change nothing."""

    title: str
    says: tuple[str, ...]
    button: str
    back: str
    danger: bool = False
    hidden: tuple[tuple[str, str], ...] = ()  # fields that the order needs
    trouble: str = ""  # why it could not be done, the last time it was asked


def ask(request: HttpRequest, visit: Visit, question: Question, status: int = 200) -> HttpResponse:
    """A POST to the same URL is the answer; it may bring a `reason`."""
    context = {"question": question, "longest": MAX_REASON, "reason": request.POST.get("reason", "")}
    return show(request, visit, "snakepit/confirm.html", context, status)


def order(request: HttpRequest) -> Order:
    """The order of whoever sent the form, with the reason that it gives."""
    return order_of(request, request.POST.get("reason", "").strip()[:MAX_REASON], "dashboard")
