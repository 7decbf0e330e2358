"""The desired state: reads Pool rows as definitions and validates each against the settings of this process."""

from __future__ import annotations

import threading

from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, ProgrammingError, close_old_connections

from snakepit.pools import conf
from snakepit.pools.adapters.interpreters.known import define, interpreters_of_settings
from snakepit.pools.broker.placement import is_placed, nodes_text
from snakepit.pools.broker.ports import Definition, Loaded
from snakepit.pools.broker.spec import InvalidSpec
from snakepit.pools.models import Pool, schema
from snakepit.pools.models.pool import sync_pools
from snakepit.pools.permissions import LABEL


class DatabaseDefinitions:
    """The port `Definitions` over the database. `load` blocks: call it in a thread.

    Database errors are raised: the broker keeps its definitions and tries again.
    """

    def __init__(self, node: str = "") -> None:
        self._node = node  # empty: the name that the settings give
        self._name, self._labels = node or conf.node_name(), conf.node_labels()
        self._synced = False
        self._interpreters = interpreters_of_settings()
        self._lock = threading.Lock()

    def load(self) -> Loaded:
        # Around every unit of work, because a connection may have died while this thread slept.
        close_old_connections()
        try:
            with self._lock:
                if not self._synced:
                    _require_tables()
                    sync_pools(self._node)
                    self._synced = True
            return self._read()
        except (OperationalError, ProgrammingError) as error:
            # SQLite raises OperationalError for a missing table or column, as for a database that is down.
            if isinstance(error, ProgrammingError) or "no such " in str(error):
                raise type(error)(
                    f"{str(error).partition(chr(10))[0]}; run: manage.py migrate{schema.option()}"
                ) from error
            raise
        finally:
            close_old_connections()

    def _read(self) -> Loaded:
        registry = conf.adapters()
        definitions: list[Definition] = []
        problems: list[tuple[str, str]] = []
        elsewhere: dict[str, str] = {}
        for pool in Pool.objects.order_by("name"):
            try:
                spec = pool.to_spec()
            except InvalidSpec as error:
                problems.append((pool.name, str(error)))
                continue
            if not is_placed(spec.nodes, self._name, self._labels):
                if spec.enabled:
                    elsewhere[pool.name] = nodes_text(spec.nodes)
                continue  # before its adapter is looked up: the settings of this node need not have it
            path = registry.get(spec.adapter)
            if path is None:
                why = f"adapter: {spec.adapter!r} is no key of SNAKEPIT['ADAPTERS'] on this node"
                problems.append((pool.name, why))
            elif why := conf.find_python_problem(spec.python):
                problems.append((pool.name, f"python: {why}"))
            else:
                definitions.append(define(spec, path, self._interpreters))
        return Loaded(tuple(definitions), tuple(problems), elsewhere)


def _require_tables() -> None:
    """Raise if migrations are missing: writing while `migrate` runs could make it fail on SQLite."""
    if why := schema.find_split():
        raise ImproperlyConfigured(f"{why} {schema.SPLIT_HINT}")
    if lacking := schema.unapplied(LABEL):
        first = lacking[0].partition(".")[2]
        raise ProgrammingError(f"migrations not applied: {len(lacking)}, from {first} on")
