"""The database of this app's models: which one it is, and whether it has the tables of this release."""

from __future__ import annotations

from django.contrib.auth import get_user_model
from django.db import DEFAULT_DB_ALIAS, connections, router
from django.db.migrations.executor import MigrationExecutor

from snakepit.pools.models.pool import Pool

SPLIT_HINT = "Route snakepit_pools, the user model's app, auth and contenttypes to the same database."


def alias() -> str:
    """The database that the project's routers choose for this app. All its models share it: rows refer to each other.

    `transaction` and `connection` use the default database unless they receive this alias.
    """
    return str(router.db_for_write(Pool))


def option() -> str:
    """What `manage.py migrate` needs to migrate this app's database."""
    return "" if alias() == DEFAULT_DB_ALIAS else f" --database={alias()}"


def find_split() -> str:
    """Why rows cannot refer to users: the routers put them in two databases. Empty if they share one."""
    users = str(router.db_for_write(get_user_model()))
    if users == alias():
        return ""
    return (
        f"DATABASE_ROUTERS put the app snakepit_pools in the database {alias()!r} and the user model in {users!r}. "
        "Pools and API keys refer to users, and a foreign key cannot cross databases."
    )


def unapplied(label: str | None = None) -> tuple[str, ...]:
    """Unapplied migrations of this app's database, of one app or all, as `app.name` in the order of application.

    Migrations that the settings disable (MIGRATION_MODULES) are left out.
    """
    executor = MigrationExecutor(connections[alias()])
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes(label))
    names = [(migration.app_label, migration.name) for migration, _ in plan]
    return tuple(f"{app}.{name}" for app, name in names if label in (None, app))
