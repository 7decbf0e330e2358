"""The errors of arguments that are too large, by the limit that refuses them.

>>> print(arguments_too_large("digits", 2_000_000, 1_048_576).message.partition(". ")[0])
The arguments have 2,000,000 bytes; the max_payload of pool digits is 1,048,576
"""

from __future__ import annotations

from snakepit.pools.broker.errors import PayloadTooLarge


def arguments_too_large(pool: str, size: int, limit: int) -> PayloadTooLarge:
    """Return the error of arguments that are larger than the pool's max_payload."""
    sentence = f"The arguments have {size:,} bytes; the max_payload of pool {pool} is {limit:,}."
    return _too_large(sentence, size, limit, "max_payload")


def buffers_too_large(pool: str, size: int, limit: int) -> PayloadTooLarge:
    """Return the error of arguments whose parts in shared memory are larger than the pool's max_buffer."""
    sentence = f"The arguments have {size:,} bytes in shared memory; the max_buffer of pool {pool} is {limit:,}."
    return _too_large(sentence, size, limit, "max_buffer")


def call_too_large(size: int, limit: int) -> PayloadTooLarge:
    """Return the error of a call that is refused by its declared size, before its pool is read."""
    sentence = f"The call has about {size:,} bytes; the largest max_payload of the broker's pools is {limit:,}."
    return _too_large(sentence, size, limit, "max_payload")


def _too_large(sentence: str, size: int, limit: int, setting: str) -> PayloadTooLarge:
    advice = f"Raise {setting}, send the data in parts, or pass the name of a file."
    return PayloadTooLarge(f"{sentence} {advice}", details={"bytes": size, "limit": limit})
