"""The live stream: server-sent events with the regions that changed; the same as JSON for pages that must poll.

    event: region  {"topic", "html"}       the new content of every element with that data-live
    event: beat    {"at", "state", ...}    each tick without changes: how old the numbers are
    event: points  {pool: [[...], ...]}    new points of the charts

The id of an event is the time up to which its reader has points. A browser that reconnects sends the last id and
receives the points that it missed. Regions need no replay, because the newest one is complete.
"""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.views.decorators.http import require_GET

from snakepit.pools.dashboard.access import Rights, rights_of
from snakepit.pools.dashboard.hub import hub
from snakepit.pools.dashboard.points import row
from snakepit.pools.dashboard.region import RenderCache, is_known
from snakepit.pools.dashboard.state import DashboardState
from snakepit.pools.jobs.leases import db_unit
from snakepit.pools.web.headers import UNCACHED

TOPICS = 20  # regions a page
BEAT = 2.0  # seconds between two events at most
LIFE = 600.0  # seconds of one stream; the browser then reconnects, and its rights are read again
ALL = "*"  # the points of all pools together
AT = "@"  # between a pool and a node; without it, the points of all nodes

_rendered = RenderCache()


class StreamRefused(Exception):
    """The stream is refused, with this HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class Reader:
    """One open page: what it shows, and what it has received."""

    topics: tuple[str, ...]
    pools: tuple[str, ...]  # pools whose points it requests, or pool@node
    rights: Rights
    since: float = 0.0  # it has the points up to this time
    sent: dict[str, str] = field(default_factory=dict)

    def news(self, state: DashboardState) -> list[tuple[str, Any]]:
        """The events that it has not received yet."""
        found: list[tuple[str, Any]] = []
        for topic in self.topics:
            html = _rendered.of(topic, state, self.rights)
            if self.sent.get(topic) != html:
                self.sent[topic] = html
                found.append(("region", {"topic": topic, "html": html}))
        if points := self._points(state):
            found.append(("points", points))
        return [*found, ("beat", beat(state))]

    def _points(self, state: DashboardState) -> dict[str, list[list[float | None]]]:
        after = self.since
        self.since = after if state.trouble else state.seen_at  # other nodes may answer meanwhile
        found = {}
        for key in self.pools:
            pool, _, node = key.partition(AT)
            found[key] = [row(point) for point in hub.store.points("" if pool == ALL else pool, after, node)]
            self.since = max([self.since, *(points[0] or 0.0 for points in found[key])])
        return {name: points for name, points in found.items() if points}


def beat(state: DashboardState) -> dict[str, Any]:
    """How old the numbers are; with the server's time, because the browser's clock may be wrong."""
    freshness = "stale" if state.stale else "live"
    return {
        "at": state.at, "now": round(time.time(), 3), "state": freshness, "since": state.trouble_since,
        "trouble": state.trouble_kind,
    }  # fmt: skip


@require_GET
async def stream(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """The open stream. Rights are read once, when it begins; the page opens a new one every ten minutes."""
    if not isinstance(request, ASGIRequest):
        return HttpResponse("This server cannot stream: poll.", status=501, content_type="text/plain")
    try:
        reader = await sync_to_async(_reader)(request)
    except StreamRefused as refused:
        return HttpResponse(str(refused), status=refused.status, content_type="text/plain")
    close_at_exit()
    response = StreamingHttpResponse(frames(reader), content_type="text/event-stream; charset=utf-8")
    response["Cache-Control"] = "no-cache"
    response["X-Accel-Buffering"] = "no"  # otherwise nginx buffers the events
    return response


@require_GET
def fragments(request: HttpRequest) -> HttpResponse:
    """The same for a page that polls: every region, and the points since `since`."""
    try:
        reader = _reader(request)
    except StreamRefused as refused:
        return HttpResponse(str(refused), status=refused.status, content_type="text/plain")
    events = reader.news(hub.fresh())
    regions = [data for kind, data in events if kind == "region"]
    answer = {"regions": regions, **{kind: data for kind, data in events if kind != "region"}}
    return JsonResponse({**answer, "id": f"{reader.since:.3f}"}, headers={"Cache-Control": UNCACHED})


async def frames(reader: Reader) -> AsyncGenerator[str, None]:
    """All regions first, then changes. The next frame is made after the last was sent, so no queue grows."""
    yield "retry: 2000\n\n"
    begun = sent = time.monotonic()
    freshness = ""
    async with aclosing(hub.watch()) as watch:
        async for state in watch:
            events = reader.news(state)
            now, before, freshness = time.monotonic(), freshness, events[-1][1]["state"]
            if len(events) == 1 and freshness == before and now - sent < BEAT:
                continue
            sent = now
            text = "".join(f"event: {kind}\ndata: {_json(data)}\n\n" for kind, data in events)
            with hub.sending():
                yield f"id: {reader.since:.3f}\n{text}"
            if now - begun > LIFE:
                return


def close_at_exit() -> None:
    """End the streams when the server stops: it waits for open responses before it shuts the application down.

    The server's own signal handler still runs. Servers without one keep their own time limit.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        if callable(before) and not isinstance(before, _Closing):
            signal.signal(number, _Closing(before, loop))


class _Closing:
    """A signal handler that closes the hub and then calls the previous handler."""

    def __init__(self, before: Callable[[int, FrameType | None], Any], loop: asyncio.AbstractEventLoop) -> None:
        self._before = before
        self._loop = loop

    def __call__(self, number: int, frame: FrameType | None) -> Any:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(hub.close)
        return self._before(number, frame)


def _json(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"))


def _reader(request: HttpRequest) -> Reader:
    """The reader of a request. Raises StreamRefused. Closes its database connection: a stream may last for hours."""
    with db_unit():
        rights = rights_of(request.user)
    if not rights:
        raise StreamRefused(403, "Sign in again.")
    topics = tuple(dict.fromkeys(request.GET.getlist("topic")))
    if unknown := [topic for topic in topics if not is_known(topic)]:
        raise StreamRefused(404, f"No region is named {unknown[0]!r}.")
    if len(topics) > TOPICS:
        raise StreamRefused(400, f"A stream has at most {TOPICS} topics.")
    pools = tuple(request.GET.getlist("points"))
    return Reader(topics, pools, rights, _moment(request.headers.get("Last-Event-ID") or request.GET.get("since", "")))


def _moment(text: str) -> float:
    """The time in the id of the browser's last event; 0: it has none."""
    try:
        moment = float(text)
    except ValueError:
        return 0.0
    return moment if moment > 0 else 0.0
