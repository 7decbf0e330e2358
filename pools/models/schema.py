"""Whether the database has the tables of this release."""

from __future__ import annotations

from django.db import connection
from django.db.migrations.executor import MigrationExecutor


def unapplied(label: str | None = None) -> tuple[str, ...]:
    """Unapplied migrations of the default database, of one app or all, as `app.name` in the order of application.

    Migrations that the settings disable (MIGRATION_MODULES) are left out.
    """
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes(label))
    names = [(migration.app_label, migration.name) for migration, _ in plan]
    return tuple(f"{app}.{name}" for app, name in names if label in (None, app))
