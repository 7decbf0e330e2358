"""Numbers as people read them. `--json` has the exact ones."""

from __future__ import annotations


def megabytes(memory: float | None) -> str:
    """`-` if it is not measured.

    >>> megabytes(18.2), megabytes(-1.0), megabytes(None)
    ('18 MiB', '-', '-')
    """
    return "-" if memory is None or memory < 0 else f"{memory:.0f} MiB"


def duration(seconds: float) -> str:
    """Two units at most.

    >>> duration(5), duration(125), duration(90_000)
    ('5 s', '2 min 5 s', '1 d 1 h')
    """
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, seconds = divmod(int(seconds), size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def span(seconds: float) -> str:
    """A time that may be very short, to two or three digits.

    >>> span(0.000011), span(0.0321), span(1.234), span(75)
    ('11 µs', '32 ms', '1.2 s', '1 min 15 s')
    """
    if seconds >= 60:
        return duration(seconds)
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= size:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds * 1e6:.0f} µs"
