"""The acting user of a web page, and the address of a request."""

from __future__ import annotations

from django.http import HttpRequest

from snakepit.pools.operations.orders import Order
from snakepit.pools.proxies import parse


def order_of(request: HttpRequest, reason: str, surface: str) -> Order:
    """The order of a signed-in user, as the audit log shows it."""
    name = request.user.get_username()
    return Order(f"user {name}", reason, name, surface, address_of(request))


def address_of(request: HttpRequest) -> str:
    """The client's address; empty if the server gives something else.

    The middleware TrustedProxies reads the headers of proxies. A server that reads them itself may pass on any text.
    """
    address = parse(str(request.META.get("REMOTE_ADDR") or ""))
    return str(address) if address else ""
