"""MomentField: a DateTimeField whose values are instants, also where the project sets USE_TZ = False.

    Python   always aware
    rows     USE_TZ = True: what Django stores
             USE_TZ = False: PostgreSQL converts by itself; SQLite has no time zones and gets UTC, which Now() is there

Local times without a zone repeat an hour each autumn and skip one each spring: leases and deadlines would end early.

The first and last days of the calendar have no local time in some zones: one such row would fail each list that has it.
So input refuses them, and a row that has one is read as FIRST or LAST.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

FIRST, LAST = datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)


def find_problem(moment: datetime) -> str:
    """What is wrong with an aware moment that came from outside; empty: nothing.

    >>> find_problem(datetime(9999, 12, 31, tzinfo=UTC))
    'is outside the years 2 to 9998'
    """
    return "" if FIRST <= moment <= LAST else "is outside the years 2 to 9998"


def validate(moment: datetime) -> None:
    """Refuse such a moment in a form."""
    if timezone.is_aware(moment) and (problem := find_problem(moment)):
        raise ValidationError(f"This time {problem}.")


def _in_utc(moment: datetime) -> datetime:
    """The same instant. PostgreSQL refuses an offset of 16 hours and more, which Python has.

    >>> _in_utc(datetime.fromisoformat("2026-07-01T12:00:00+22:08"))
    datetime.datetime(2026, 6, 30, 13, 52, tzinfo=datetime.timezone.utc)
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError:  # the first and last hours of the calendar
        return moment


def utc_now() -> datetime:
    """The current time, aware. `timezone.now()` is naive where USE_TZ is False."""
    return datetime.now(UTC)


class MomentField(models.DateTimeField):  # type: ignore[type-arg]  # it takes none at run time
    """An instant. Naive input (an admin form under USE_TZ = False) is local time in TIME_ZONE."""

    default_validators = [validate]

    def to_python(self, value: Any) -> Any:
        moment = super().to_python(value)
        if settings.USE_TZ or moment is None or timezone.is_aware(moment):
            return moment
        return timezone.make_aware(moment, timezone.get_default_timezone())

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        if self.auto_now or (self.auto_now_add and add):
            setattr(model_instance, self.attname, utc_now())
            return getattr(model_instance, self.attname)
        return super().pre_save(model_instance, add)

    def from_db_value(self, value: datetime | None, expression: Any, connection: BaseDatabaseWrapper) -> Any:
        if value is None:
            return None
        local = timezone.get_default_timezone()
        if timezone.is_aware(value):
            return value if FIRST.year < value.year < LAST.year else min(max(value, FIRST), LAST)
        stored = local if connection.features.supports_timezones else UTC
        return min(max(timezone.make_aware(value, stored), FIRST), LAST).astimezone(local)

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        value = value if prepared else self.get_prep_value(value)
        if isinstance(value, datetime) and timezone.is_aware(value):
            value = _in_utc(value)
            if not settings.USE_TZ and not connection.features.supports_timezones:
                value = timezone.make_naive(value, UTC)
        return super().get_db_prep_value(value, connection, prepared=True)

    def value_from_object(self, obj: models.Model) -> Any:
        """The value that a form shows. Django's forms convert to local time only where USE_TZ is True."""
        value: Any = super().value_from_object(obj)
        if settings.USE_TZ or value is None or timezone.is_naive(value):
            return value
        return timezone.make_naive(value, timezone.get_default_timezone())
