"""Whether a call whose worker died runs again: its attempts, and the pool's budget of retries."""

from __future__ import annotations

from snakepit.pools.broker.pool.batches import split_limit
from snakepit.pools.broker.pool.calls import Call
from snakepit.pools.broker.pool.rates import RetryBudget

BATCH_ATTEMPTS = 3  # after which a call that ran in batches runs alone
MAX_ATTEMPTS = 6  # of one call: if a storm of kills ends one attempt of ten, one call of a million is lost


class RetryRule:
    """Grants retries. A batch that killed its worker runs again in smaller ones, the last time each call alone."""

    def __init__(self, share: float) -> None:
        self.budget = RetryBudget(share)

    def grant(self, call: Call, *, begun: bool, accepted: int) -> bool:
        """Take the call out of its batch. True: it may run again, and a retry is spent for its next batch."""
        batch, call.batch = call.batch, None
        if (begun and not call.idempotent) or call.attempts >= MAX_ATTEMPTS:
            return False
        if batch is None:
            return self.budget.spend(accepted)
        if begun:
            call.batch_limit = split_limit(batch.size, max(1, BATCH_ATTEMPTS - call.attempts))
        if not batch.free_retries:
            if not self.budget.spend(accepted):
                return False
            batch.free_retries = call.batch_limit or batch.size
        batch.free_retries -= 1
        return True
