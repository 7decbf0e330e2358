"""Live regions: the parts of pages that are rendered again when the state change.

A region is a function from the state to the context of a template, under a name. A page shows it with
`{% live "pool" name %}`, which writes `<div data-live="pool:NAME">`; the stream sends its HTML when that has changed.
The topic is the name, and after a colon the argument. A region asks neither database nor broker, because it is
rendered twice a second, once for all viewers with the same rights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.template.loader import render_to_string

from snakepit.pools.dashboard.access import Rights
from snakepit.pools.dashboard.state import DashboardState

Context = dict[str, Any]
Region = Callable[[DashboardState, str], Context]

WITHOUT_STATUS = ("banner", "alerts", "cluster", "pool-nodes")  # they show something before any broker answers
OF_THIS_HOST = ("node", "limits")  # they show the broker of this host alone
_regions: dict[str, tuple[str, Region]] = {}


class UnknownRegion(ValueError):
    """No region has this name."""


def region(name: str, template: str) -> Callable[[Region], Region]:
    """Register a region. Its function receives the state and the argument of the topic ("" without one)."""

    def register(function: Region) -> Region:
        _regions[name] = (template, function)
        return function

    return register


def topic(name: str, argument: str = "") -> str:
    return f"{name}:{argument}" if argument else name


def render(of: str, state: DashboardState, rights: Rights) -> str:
    """The HTML of a topic. Until a broker has answered once, every region shows that none has."""
    name, _, argument = of.partition(":")
    if name not in _regions:
        raise UnknownRegion(f"no region is named {name!r}")
    template, function = _regions[name]
    known = state.known if name in OF_THIS_HOST else state.shown
    if not known and name not in WITHOUT_STATUS:
        return render_to_string("snakepit/_unknown.html", {"state": state})
    # Stripped, because CSS hides an empty element, but not one with a line break.
    return render_to_string(template, {"state": state, "rights": rights, **function(state, argument)}).strip()


def is_known(of: str) -> bool:
    return of.partition(":")[0] in _regions


class RenderCache:
    """Renders each topic of the newest state once for all viewers with the same rights."""

    def __init__(self) -> None:
        self._facts: DashboardState | None = None
        self._html: dict[tuple[str, Rights], str] = {}

    def of(self, topic: str, state: DashboardState, rights: Rights) -> str:
        if state is not self._facts:
            self._facts = state
            self._html.clear()
        key = (topic, rights)
        html = self._html.get(key)
        if html is None:
            html = self._html[key] = render(topic, state, rights)
        return html
