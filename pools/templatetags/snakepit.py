"""Template tags and filters of the dashboard.

>>> duration(0.000037), duration(0.0042), duration(75), duration(200_000)
('37 µs', '4.2 ms', '1 min 15 s', '2 d 7 h')
>>> megabytes(812.4), megabytes(20480), megabytes(-1) == NONE
('812 MiB', '20.0 GiB', True)
>>> count(1234567)
'1,234,567'
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from json import dumps
from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from snakepit.pools.broker.pool.times import BOUNDS
from snakepit.pools.dashboard import region

register = template.Library()
NONE = "\N{EN DASH}"
UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@register.simple_tag(takes_context=True)
def live(context: template.Context, name: str, argument: str = "") -> SafeString:
    """Render a live region; the event stream replaces its content whenever it changes."""
    topic, visit = region.topic(name, argument), context["visit"]
    html = region.render(topic, visit.state(), visit.rights)
    return format_html('<div data-live="{}">{}</div>', topic, mark_safe(html))


@register.filter
def duration(seconds: Any) -> str:
    """Format seconds with at most two units."""
    value = _number(seconds)
    if value is None or value < 0:
        return NONE
    if 0 < value < 0.0001:
        return f"{value * 1_000_000:.0f} µs"
    if value < 1:
        return f"{value * 1000:.1f} ms" if value < 0.1 else f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    rest, parts = int(value), []
    for size, unit in UNITS:
        if rest >= size:
            parts.append(f"{rest // size} {unit}")
            rest %= size
    return " ".join(parts[:2])


@register.filter
def megabytes(value: Any) -> str:
    """Format mebibytes; a negative number means not measured yet."""
    number = _number(value)
    if number is None or number < 0:
        return NONE
    return f"{number / 1024:.1f} GiB" if number >= 10_240 else f"{number:.0f} MiB"


@register.filter
def growth(value: Any) -> str:
    """Format MiB per 1,000 calls, with a sign.

    >>> growth(4.93), growth(-0.02), growth(None) == NONE
    ('+4.9 MiB', '0.0 MiB', True)
    """
    number = _number(value)
    if number is None:
        return NONE
    return "0.0 MiB" if abs(number) < 0.05 else f"{number:+.1f} MiB"


@register.filter
def slope(value: Any) -> str:
    """Format MiB per hour, with a sign.

    >>> slope(12.34), slope(-0.2)
    ('+12 MiB/h', '0 MiB/h')
    """
    number = _number(value)
    if number is None:
        return NONE
    return "0 MiB/h" if abs(number) < 0.5 else f"{number:+,.0f} MiB/h"


@register.filter
def at_most(seconds: Any) -> str:
    """Format the upper bound of a histogram bucket; infinity is above the last bound.

    >>> at_most(0.01), at_most(math.inf)
    ('≤ 10 ms', '> 10 s')
    """
    if seconds == math.inf:
        return f"> {duration(BOUNDS[-1])}"
    text = duration(seconds)
    return text if text == NONE else f"≤ {text.replace('.0 ', ' ')}"


@register.filter
def count(value: Any) -> str:
    number = _number(value)
    return NONE if number is None else f"{number:,.0f}"


@register.filter
def rate(value: Any) -> str:
    """Format calls per second."""
    number = _number(value)
    if number is None:
        return NONE
    return f"{number:,.0f}" if number >= 100 else f"{number:.1f}"


@register.filter
def share(part: Any, whole: Any) -> int:
    """Percent, 0 to 100; 0 if `whole` is 0."""
    part, whole = _number(part) or 0.0, _number(whole) or 0.0
    return round(100 * min(1.0, max(0.0, part / whole))) if whole > 0 else 0


@register.filter
def percent(part: Any) -> str:
    """Format a fraction from 0 to 1 as percent."""
    return f"{share(part, 1)} %"


@register.filter
def spans(text: str) -> SafeString:
    """Escape a docstring's text and mark the parts between backticks as code.

    >>> spans("the first `n` <b>")
    'the first <code>n</code> &lt;b&gt;'
    """
    parts = [format_html("<code>{}</code>" if index % 2 else "{}", part) for index, part in enumerate(text.split("`"))]
    return mark_safe("".join(parts))


@register.filter
def utc(moment: datetime) -> str:
    """Format a time in UTC. Django's `date` filter would use the project's TIME_ZONE.

    >>> utc(datetime(2026, 1, 31, 12, tzinfo=UTC))
    '2026-01-31 12:00:00 UTC'
    """
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


@register.filter
def svg(value: float) -> str:
    """Format a number for an SVG attribute: with a point in every locale."""
    return f"{value:.2f}"


@register.filter
def json(value: Any) -> str:
    """Indented JSON. The template escapes it like any other text."""
    return dumps(value, indent=2, ensure_ascii=False, default=str)


@register.simple_tag
def ago(moment: Any) -> SafeString:
    """A time as its age; the page's script updates the text."""
    return _time("ago", moment)


@register.simple_tag
def until(moment: Any) -> SafeString:
    """A time in the future as the time until then; the page's script updates the text."""
    return _time("until", moment)


def _time(kind: str, moment: Any) -> SafeString:
    at = moment.timestamp() if isinstance(moment, datetime) else _number(moment)
    if not at:
        return SafeString(NONE)
    text = datetime.fromtimestamp(at, UTC)
    return format_html(
        '<time datetime="{}" title="{}" data-{}="{}">{}</time>',
        text.isoformat(timespec="seconds"), f"{text:%Y-%m-%d %H:%M:%S} UTC", kind, f"{at:.3f}", f"{text:%H:%M:%S}",
    )  # fmt: skip


@register.filter
def day(at: float) -> str:
    """A moment in seconds since the epoch as its day (UTC)."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


@register.simple_tag
def bar(value: Any, most: Any, label: str = "", kind: str = "") -> SafeString:
    """A small horizontal bar: `value` of `most`, with a label for screen readers."""
    width = share(value, most)
    return format_html(
        '<svg class="bar {}" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="track" width="100" height="8"/><rect class="fill" width="{}" height="8"/></svg>',
        kind, label or f"{width} %", width,
    )  # fmt: skip


@register.simple_tag
def spark(values: Iterable[Any], label: str = "") -> SafeString:
    """A sparkline of the values, scaled from zero to the largest. None is a gap in the line."""
    numbers = [_number(value) for value in values]
    known = [number for number in numbers if number is not None]
    if len(known) < 2:
        return SafeString(NONE)
    top, step = max(known) or 1.0, 100 / (len(numbers) - 1)
    lines = []
    for is_known, run in itertools.groupby(enumerate(numbers), lambda one: one[1] is not None):
        if not is_known:
            continue
        points = [(index * step, 22 - 20 * (value or 0.0) / top) for index, value in run]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        area = f"{points[0][0]:.1f},24 {line} {points[-1][0]:.1f},24"
        lines.append(format_html('<polygon points="{}"/><polyline points="{}"/>', area, line))
    return format_html(
        '<svg class="spark" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>',
        label, mark_safe("".join(lines)),
    )  # fmt: skip


@register.simple_tag
def columns(values: Iterable[Any], label: str = "") -> SafeString:
    """A small histogram: a column for each bucket, scaled to the tallest."""
    numbers = [_number(value) or 0.0 for value in values]
    top = max(numbers, default=0.0) or 1.0
    parts = [
        # A bucket that is not empty is at least 2 high, so that it is visible.
        format_html('<rect x="{}" y="{}" width="8" height="{}"/>', 10 * index + 1, f"{24 - high:.1f}", f"{high:.1f}")
        for index, value in enumerate(numbers)
        if (high := max(2.0, 24 * value / top) if value else 0.0)
    ]
    return format_html(
        '<svg class="columns-of" viewBox="0 0 {} 24" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<path class="base" d="M0 23.5H{}"/>{}</svg>',
        10 * len(numbers), label, 10 * len(numbers), mark_safe("".join(parts)),
    )  # fmt: skip


@register.filter
def worker_name(ident: str) -> SafeString:
    """Split a worker's id in two: where space is short, CSS truncates the pool's name and keeps the number.

    >>> worker_name("digits-0591-2")
    '<span>digits</span><span>-0591-2</span>'
    """
    pool, *number = ident.rsplit("-", 2)
    return format_html("<span>{}</span><span>{}</span>", pool, "".join(f"-{part}" for part in number))


@register.simple_tag
def badge(state: str, text: str = "") -> SafeString:
    """The state of a pool, worker or job: a coloured dot and the word."""
    kind = "".join(itertools.takewhile(lambda letter: letter.isalnum() or letter in "-_", state))
    return format_html('<span class="state {}">{}</span>', kind, text or state)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
