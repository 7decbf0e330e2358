"""The pages that the navigation lists, and the keys that open them: `g` and then the letter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from django.urls import reverse

from snakepit.pools.dashboard.access import VIEW, Rights


@dataclass(frozen=True, slots=True)
class Entry:
    title: str
    view: str  # name in the namespace `snakepit`, and the page's section
    key: str
    right: str = VIEW


ENTRIES = (
    Entry("Overview", "overview", "o"),
    Entry("Pools", "pools", "p"),
    Entry("Workers", "workers", "w"),
    Entry("Jobs", "jobs", "j"),
    Entry("Nodes", "nodes", "n"),
    Entry("Events", "events", "e"),
    Entry("Diagnostics", "diagnostics", "d"),
    Entry("Playground", "playground", "y", "run"),
    Entry("Audit", "audit", "a"),
)


def navigation(rights: Rights, section: str) -> Iterator[dict[str, str | bool]]:
    for entry in ENTRIES:
        if entry.right in rights:
            url = reverse(f"snakepit:{entry.view}")
            yield {"title": entry.title, "url": url, "key": entry.key, "current": entry.view == section}
