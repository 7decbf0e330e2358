"""A value of the caller in an error: bounded, and text that every log and database takes."""

from __future__ import annotations

from typing import Any

LONGEST = 100  # characters
LARGE = 10**40


def shown(value: Any, longest: int = LONGEST) -> str:
    """The start of its `repr`. Python refuses to print a whole number of more than 4300 digits.

    >>> shown("x" * 200)[-5:], shown(10**5000), shown([10**5000])
    ('xx...', 'a number of more than 40 digits', 'a list with a number of more than 4300 digits')
    """
    if isinstance(value, int) and abs(value) >= LARGE:
        return "a number of more than 40 digits"
    try:
        text = repr(value)
    except ValueError:  # such a number is inside
        return f"a {type(value).__name__} with a number of more than 4300 digits"
    return text if len(text) <= longest else f"{text[:longest]}..."
