"""The admin: pools are edited, what was seen is only read, orders go through `snakepit.pools.operations.orders`."""

from snakepit.pools.admin import apikey, audit, job, observed, pool

__all__ = ["apikey", "audit", "job", "observed", "pool"]
