"""Whether the database has the tables of this release."""

from __future__ import annotations

from django.db import connection
from django.db.migrations.executor import MigrationExecutor


def unapplied(label: str | None = None) -> tuple[str, ...]:
    """The migrations that the default database lacks, of one app or of all, as `app.name`, in the order to apply them.

    Migrations that the settings turn off (MIGRATION_MODULES) are not lacking.
    """
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes(label))
    names = [(migration.app_label, migration.name) for migration, _ in plan]
    return tuple(f"{app}.{name}" for app, name in names if label in (None, app))
