"""Who acts through a web page: the order of a signed-in user, and the address of a request."""

from __future__ import annotations

from django.http import HttpRequest

from snakepit.pools.operations.orders import Order


def order_of(request: HttpRequest, reason: str, surface: str) -> Order:
    """The order of a signed-in user, as the audit names it."""
    name = request.user.get_username()
    return Order(f"user {name}", reason, name, surface, address_of(request))


def address_of(request: HttpRequest) -> str:
    """The peer's address. Headers of proxies are not believed: any caller could write them."""
    return str(request.META.get("REMOTE_ADDR") or "")[:45]
