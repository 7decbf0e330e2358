"""The live stream itself: snapshot, news, replay, the end."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest

from snakepit.pools.dashboard import stream, urls
from snakepit.pools.dashboard.hub import Hub
from snakepit.pools.dashboard.stream import Reader, frames
from tests.process.integration.fakes import FakeClient, unreachable

pytestmark = pytest.mark.django_db
RIGHTS = frozenset({"view"})
assert urls.urlpatterns  # its pages register the regions


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub that ticks at once and never looks at the database."""
    fresh = Hub()
    fresh._looked = float("inf")
    monkeypatch.setattr("snakepit.pools.dashboard.hub.TICK", 0.0)
    for module in ("stream", "page", "series"):
        monkeypatch.setattr(f"snakepit.pools.dashboard.{module}.hub", fresh)
    return fresh


def events(frame: str) -> dict[str, Any]:
    """The events of a frame by kind; of several regions the last."""
    found = {}
    for block in frame.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in lines:
            found[lines["event"]] = json.loads(lines["data"])
    return found


async def until(content: Any, kind: str) -> dict[str, Any]:
    async for frame in content:
        if kind in (found := events(frame)):
            return found
    raise AssertionError(f"the stream ended without {kind}")


async def test_a_stream_begins_with_a_snapshot_and_goes_on_with_what_changes(hub: Hub, broker: FakeClient) -> None:
    async with aclosing(frames(Reader(("pools",), ("digits",), RIGHTS))) as content:
        first = await until(content, "region")
        assert "digits" in first["region"]["html"]
        assert first["points"]["digits"]
        assert first["beat"]["state"] == "live"
        broker.change_pool(waiting=77)
        assert "77" in (await until(content, "region"))["region"]["html"]
    hub.close()


async def test_a_reader_that_comes_back_gets_the_points_that_it_missed(hub: Hub, broker: FakeClient) -> None:
    status = broker.watch()
    for at in (10.0, 11.0, 12.0):
        hub.store.fold(status, at)
    reader = Reader((), ("digits",), RIGHTS, since=10.0)
    points = dict(reader.news(hub.store.state))["points"]["digits"]
    assert [point[0] for point in points] == [11.0, 12.0]
    assert "points" not in dict(reader.news(hub.store.state))


async def test_all_streams_share_one_question_to_the_broker(
    hub: Hub, broker: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakepit.pools.dashboard.hub.TICK", 3600.0)
    asked: list[int] = []
    watch = broker.watch
    broker.watch = lambda after=0, timeout=10.0: (asked.append(after), watch(after))[1]  # type: ignore[method-assign]
    readers = [frames(Reader(("pools",), (), RIGHTS)) for _ in range(20)]
    # On an event loop Django refuses every query: a region that asked the database would fail here.
    await asyncio.gather(*(until(reader, "region") for reader in readers))
    assert len(asked) == 1
    for reader in readers:
        await reader.aclose()
    hub.close()


async def test_a_broker_that_disappears_and_returns_is_shown(hub: Hub, broker: FakeClient) -> None:
    async with aclosing(frames(Reader(("banner",), (), RIGHTS))) as content:
        await until(content, "beat")
        broker.error = unreachable()
        found = await until(content, "region")
        assert "No broker runs here" in found["region"]["html"]
        assert found["beat"]["state"] == "stale"
        broker.error = None
        assert (await until(content, "region"))["beat"]["state"] == "live"
    hub.close()


async def test_every_stream_ends_when_the_server_stops(hub: Hub, broker: FakeClient) -> None:
    content = frames(Reader(("pools",), (), RIGHTS))
    await until(content, "region")
    hub.close()
    async with asyncio.timeout(60):
        assert [frame async for frame in content if "region" in frame] == []


async def test_a_reader_that_takes_nothing_is_dropped(
    hub: Hub, broker: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakepit.pools.dashboard.hub.SLOW", -1.0)
    taken = asyncio.Event()

    async def read() -> None:
        async with aclosing(frames(Reader(("pools",), (), RIGHTS))) as content:
            async for frame in content:
                if "region" in frame:
                    taken.set()
                    await asyncio.Event().wait()  # a socket that is full for ever

    task = asyncio.create_task(read())
    await taken.wait()
    async with asyncio.timeout(60):
        with pytest.raises(asyncio.CancelledError):
            await task
    hub.close()


async def test_a_stream_ends_after_its_time_so_that_rights_are_read_again(
    hub: Hub, broker: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LIFE", -1.0)
    async with asyncio.timeout(60):
        found = [frame async for frame in frames(Reader(("pools",), (), RIGHTS))]
    assert "region" in events(found[-1])
    hub.close()
