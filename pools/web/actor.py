"""The acting user of a web page, and the address of a request."""

from __future__ import annotations

from django.http import HttpRequest

from snakepit.pools.operations.orders import Order


def order_of(request: HttpRequest, reason: str, surface: str) -> Order:
    """The order of a signed-in user, as the audit log shows it."""
    name = request.user.get_username()
    return Order(f"user {name}", reason, name, surface, address_of(request))


def address_of(request: HttpRequest) -> str:
    """The peer's address. Headers of proxies are ignored, because any caller can send them."""
    return str(request.META.get("REMOTE_ADDR") or "")[:45]
