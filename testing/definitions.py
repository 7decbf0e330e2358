"""The pools of a test: those that it names, else those of the settings and of the Pool table."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import Any

from snakepit.pools.broker.ports import Definition
from snakepit.pools.broker.spec import InvalidSpec, PoolSpec, spec_from
from snakepit.workers.adapter import Adapter

Given = Mapping[str, "type[Adapter] | str | Mapping[str, Any]"]


class PoolDefinitions:
    """Finds a pool's definition when it is first used."""

    def __init__(self, given: Given | None) -> None:
        self.classes: dict[str, type[Adapter]] = {}
        self._saved: dict[str, PoolSpec] = {}  # rows that the test saved; an event loop cannot read the table
        self._given: dict[str, Definition] | None = None
        if given is not None:
            self._given = {name: self._definition(name, value) for name, value in given.items()}

    def names(self) -> list[str]:
        return list(self._given if self._given is not None else (spec.name for spec in _settings_specs()))

    def find(self, pool: str) -> Definition | None:
        """The definition; None if there is no such pool, or it is disabled."""
        if self._given is not None:
            return self._given.get(pool)
        spec = next((one for one in _settings_specs() if one.name == pool), None) or _row(pool)
        spec = spec or self._saved.get(pool)
        if spec is None or not spec.enabled:
            return None
        from snakepit.pools import conf

        return Definition(spec, conf.adapters().get(spec.adapter, spec.adapter))

    def keep_row(self, *, instance: Any, **_: Any) -> None:
        """Receive a row of the Pool table that was saved."""
        with contextlib.suppress(InvalidSpec):
            self._saved[instance.name] = instance.to_spec()

    def spec(self, pool: str) -> PoolSpec | None:
        found = self.find(pool)
        return found.spec if found else None

    def _definition(self, name: str, value: type[Adapter] | str | Mapping[str, Any]) -> Definition:
        fields = dict(value) if isinstance(value, Mapping) else {"adapter": value}
        adapter = fields.pop("adapter", None)
        if isinstance(adapter, type) and issubclass(adapter, Adapter):
            self.classes[name] = adapter
            path = f"{adapter.__module__}.{adapter.__qualname__}"
        elif isinstance(adapter, str) and adapter:
            path = _registered(adapter)
        else:
            raise ValueError(
                f"pools[{name!r}]: {adapter!r} is not an adapter; give the class, its dotted path, or a dict of the "
                "pool's fields with an `adapter`"
            )
        return Definition(spec_from({"size": 2, **fields, "name": name, "adapter": "test"}), path)


def _registered(adapter: str) -> str:
    """The dotted path for a key of SNAKEPIT["ADAPTERS"]; a path is its own."""
    if "." in adapter or not _has_settings():
        return adapter
    from snakepit.pools import conf

    return conf.adapters().get(adapter, adapter)


def _settings_specs() -> tuple[PoolSpec, ...]:
    if not _has_settings():
        return ()
    from snakepit.pools import conf

    return conf.pool_specs()


def _has_settings() -> bool:
    if "django.conf" not in sys.modules:
        return False
    from django.conf import settings

    return settings.configured or bool(getattr(settings, "SNAKEPIT", None))


def _row(pool: str) -> PoolSpec | None:
    """The pool's row, where the test may read the database."""
    if "snakepit.pools.models" not in sys.modules:
        return None
    from snakepit.pools.models import Pool

    try:
        row = Pool.objects.filter(name=pool).first()
    except Exception:  # no database in this test: Django and pytest-django raise errors of several classes
        return None
    return row.to_spec() if row else None
