"""What a broker reports about one command of a pool; part of its status."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CommandRunTimes:
    """How long the calls of one command ran since the broker started."""

    command: str
    count: int
    seconds: float  # the sum
    smoothed: float  # seconds of one run; the newest runs weigh most
    buckets: tuple[int, ...]  # runs up to 0.1 ms, 1 ms, 10 ms, 0.1 s, 1 s, 10 s, and above


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """The batches of one command, `@command(batch=...)`."""

    command: str
    limit: int  # calls that a batch may have
    wait: float  # seconds that calls may wait for more of their command beside a free slot
    active: bool  # False: the measured gain is too small, so calls run alone
    batches: int  # of two calls or more, since the broker started
    calls: int  # in these batches
    size: float  # calls of one batch, the mean of the newest ones; 0: there was none
    gain: float | None  # calls a second of a slot, divided by those of calls that run alone; None: not measured yet

    def __str__(self) -> str:
        """For people.

        >>> str(BatchStatus("classify", 32, 0.005, True, 9, 190, 21.1, 6.1))
        'batches of 21, 6.1 x'
        """
        if not self.batches:
            return "no batch yet"
        if not self.active:
            return f"off, {self.gain:g} x" if self.gain is not None else "off"
        gain = f", {self.gain:.1f} x" if self.gain is not None else ""
        return f"batches of {self.size:.0f}{gain}"
