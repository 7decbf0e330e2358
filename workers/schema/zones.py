"""Time zones as JSON: null, the key of a ZoneInfo, or an offset in seconds."""

from __future__ import annotations

from datetime import timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from snakepit.workers.schema.not_carried import NotCarried


def zone_of(zone: tzinfo | None, offset: timedelta | None) -> Any:
    """A time zone as null, its key, or its offset in seconds."""
    if zone is None:
        return None
    if isinstance(zone, ZoneInfo) and zone.key:
        return zone.key
    if offset is None:
        raise NotCarried(f"has a time zone without an offset ({type(zone).__qualname__}); use zoneinfo.ZoneInfo")
    return offset.total_seconds()


def restore_zone(content: Any) -> tzinfo | None:
    """The time zone of `zone_of`. NotCarried if this process does not have it."""
    if content is None:
        return None
    if type(content) is str:
        try:
            return ZoneInfo(content)
        except (ZoneInfoNotFoundError, OSError):
            raise NotCarried(
                f"has the time zone {content[:40]!r}, which this process does not have; pip install tzdata"
            ) from None
    return timezone(timedelta(seconds=content))
