"""How long the commands of a pool run: what the next call is expected to take, and what the status shows."""

from __future__ import annotations

from bisect import bisect_left

from snakepit.pools.broker.command_status import CommandRunTimes

UNKNOWN_SECONDS = (
    3600.0  # of a command that is not known yet; a number and no infinity, since it is added and taken off
)
MIN_RUNS = 8  # after which a command is known
WEIGHT = 1 / 8  # of the newest run in a command's smoothed time
MEAN_WEIGHT = 1 / 32  # of the newest run in the mean of all commands
BOUNDS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)  # seconds; the last bucket has what took longer
MAX_COMMANDS = 1000  # names that are kept; as many as an adapter may have


class CommandTimes:
    """The runs of one command: how many, how long, smoothed and by size."""

    __slots__ = ("buckets", "count", "seconds", "smoothed")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.smoothed = 0.0
        self.buckets = [0] * (len(BOUNDS) + 1)


class RunTimes:
    """How long the commands of a pool run. Constant time for a call, constant memory for a command.

    >>> times = RunTimes()
    >>> times.expected("echo") == UNKNOWN_SECONDS
    True
    >>> for _ in range(MIN_RUNS):
    ...     times.record("echo", 0.001)
    >>> times.expected("echo")
    0.001
    >>> times.record("echo", 8.0)  # one long run: the command counts as long for the next fifty runs
    >>> 1.0 < times.expected("echo") < 1.01
    True
    """

    __slots__ = ("commands", "mean", "runs")

    def __init__(self) -> None:
        self.commands: dict[str, CommandTimes] = {}
        self.mean = 0.0  # seconds for which a call occupies its slot, over the last runs of all commands
        self.runs = 0

    def record_stream(self, seconds: float) -> None:
        """Count a stream into the mean alone: its caller decides how long it runs."""
        self.runs += 1
        self.mean += (seconds - self.mean) * max(MEAN_WEIGHT, 1 / self.runs)

    def record(self, command: str, seconds: float, together: int = 1) -> None:
        """Count a run. A call of a batch occupies its slot for its share alone."""
        self.runs += 1
        self.mean += (seconds / together - self.mean) * max(MEAN_WEIGHT, 1 / self.runs)
        known = self.commands.get(command)
        if known is None:
            if len(self.commands) >= MAX_COMMANDS:
                return
            known = self.commands[command] = CommandTimes()
            known.smoothed = seconds
        known.count += 1
        known.seconds += seconds
        known.smoothed += (seconds - known.smoothed) * WEIGHT
        known.buckets[bisect_left(BOUNDS, seconds)] += 1

    def expected(self, command: str) -> float:
        """Return the seconds that the next run is expected to take."""
        known = self.commands.get(command)
        return UNKNOWN_SECONDS if known is None or known.count < MIN_RUNS else known.smoothed

    def status(self) -> tuple[CommandRunTimes, ...]:
        """The run times of each command, by name."""
        return tuple(
            CommandRunTimes(name, one.count, round(one.seconds, 6), round(one.smoothed, 6), tuple(one.buckets))
            for name, one in sorted(self.commands.items())
        )
