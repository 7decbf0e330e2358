"""The pages in the navigation, and the keys that open them: `g`, then the letter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from django.urls import reverse

from snakepit.pools.dashboard.access import VIEW, Rights


@dataclass(frozen=True, slots=True)
class NavigationEntry:
    title: str
    view: str  # name in the namespace `snakepit`, and the page's section
    key: str
    right: str = VIEW


ENTRIES = (
    NavigationEntry("Overview", "overview", "o"),
    NavigationEntry("Pools", "pools", "p"),
    NavigationEntry("Workers", "workers", "w"),
    NavigationEntry("Jobs", "jobs", "j"),
    NavigationEntry("Periodic", "periodic", "c"),
    NavigationEntry("Nodes", "nodes", "n"),
    NavigationEntry("Events", "events", "e"),
    NavigationEntry("Diagnostics", "diagnostics", "d"),
    NavigationEntry("Playground", "playground", "y", "run"),
    NavigationEntry("Audit", "audit", "a"),
)


def navigation(rights: Rights, section: str) -> Iterator[dict[str, str | bool]]:
    for entry in ENTRIES:
        if entry.right in rights:
            url = reverse(f"snakepit:{entry.view}")
            yield {"title": entry.title, "url": url, "key": entry.key, "current": entry.view == section}
