"""The bound on the number of workers of a pool, which the settings set.

>>> from snakepit.pools.broker.spec import PoolSpec
>>> bounded(PoolSpec(name="digits", adapter="digits", size=8), 8).size
8
>>> bounded(PoolSpec(name="digits", adapter="digits", size=9), 8)
Traceback (most recent call last):
    ...
snakepit.pools.broker.spec.InvalidSpec: size: 9 is more than SNAKEPIT["MAX_POOL_SIZE"], which is 8; raise it on a \
machine with the cores and memory for so many processes
"""

from __future__ import annotations

from snakepit.pools.broker.spec import InvalidSpec, PoolSpec

LARGEST_POOL = 256  # workers; while it starts a thousand, a broker of two cores answers no status for seconds


def bounded(spec: PoolSpec, most: int) -> PoolSpec:
    """Return the spec. Raises InvalidSpec if it has more workers than the settings allow."""
    if spec.size > most:
        raise InvalidSpec(
            {
                "size": f'{spec.size} is more than SNAKEPIT["MAX_POOL_SIZE"], which is {most}; raise it on a machine '
                "with the cores and memory for so many processes"
            }
        )
    return spec
