"""API keys of the database, for callers over the network: the same rows, hashes and rights as those of REST."""

from __future__ import annotations

from django.db import close_old_connections

from snakepit.pools.adapters.network.identity import NetworkCaller
from snakepit.pools.models.apikey import ApiKey, quota_of


class DatabaseKeys:
    """A KeySource over the rows of ApiKey."""

    def find(self, secret: str) -> NetworkCaller | None:
        close_old_connections()  # around every unit of work: a connection may have died while this thread slept
        try:
            key = ApiKey.find(secret)
            if key is None:
                return None
            key.touch()
            return NetworkCaller(
                f"key {key.name} (snk_{key.prefix})",
                key.permissions,
                frozenset(key.pools) or None,
                quota_of(key.owner.get_username(), key),
            )
        finally:
            close_old_connections()
