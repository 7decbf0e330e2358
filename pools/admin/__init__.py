"""The admin: pools and API keys are editable, observed rows read-only; actions use `snakepit.pools.operations`."""

from snakepit.pools.admin import apikey, audit, job, observed, periodic, pool

__all__ = ["apikey", "audit", "job", "observed", "periodic", "pool"]
