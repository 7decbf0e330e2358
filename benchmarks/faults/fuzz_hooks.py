"""What schemathesis does after each request (SCHEMATHESIS_HOOKS): it takes back an order that stops calls.

A drained node and a paused pool refuse calls with a 503, as they should. No later request may meet that: each 5xx that
is left is then a fault.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import schemathesis

ORDERS = ("/nodes/{node}/drain", "/pools/{pool}/pause", "/pools/{pool}/queue/pause")
PATIENCE = 60.0  # seconds


def after_call(context: Any, case: Any, response: Any) -> None:
    if case.method != "POST" or not case.path.endswith(ORDERS) or response.status_code >= 300:
        return
    sent = response.request
    url = urlsplit(sent.url)
    back = f"{url.scheme}://{url.netloc}{url.path.rpartition('/')[0]}/resume"
    headers = {"Authorization": sent.headers["Authorization"], "Content-Type": "application/json"}
    with urlopen(Request(back, b"{}", headers), timeout=PATIENCE):
        pass


schemathesis.hook(after_call)
