"""Why a value cannot be sent: a part without a form, with its path, or too many bytes."""

from __future__ import annotations

LONGEST_PATH = 200  # characters in a message


class NotCarried(Exception):
    """A part of a value cannot be sent or restored without loss.

    >>> problem = NotCarried("is a module; return data").below(".price").below("[3]").named("result")
    >>> str(problem)
    'result[3].price is a module; return data'
    """

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path

    def below(self, step: str) -> NotCarried:
        return type(self)(self.reason, step + self.path)

    def named(self, root: str) -> NotCarried:
        return self.below(root)

    @property
    def short_path(self) -> str:
        """The path for a message: of a long one, both ends."""
        return self.path if len(self.path) <= LONGEST_PATH else f"{self.path[:100]}...{self.path[-80:]}"

    def __str__(self) -> str:
        return f"{self.short_path} {self.reason}" if self.path else self.reason


class ValueTooLarge(Exception):
    """The result or chunk is larger than the call's limit."""

    def __init__(self, size: int, limit: int, what: str = "result", *, at_least: bool = False) -> None:
        self.size = size
        self.limit = limit
        super().__init__(
            f"the {what} has {'at least ' if at_least else ''}{size:,} bytes and the pool's max_payload is {limit:,}; "
            "return less, stream it in chunks, or raise max_payload"
        )
