"""The times of a pool, which reads no clock: when something is due, and how long its commands run.

The pool sets a timer under a key, and the runner calls `Pool.tick` when one is due. The run times say what the next
call is expected to take, and the status shows them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Set
from heapq import heappop, heappush

from snakepit.pools.broker.command_status import CommandRunTimes

# Of a command that is not known yet. A number and no infinity, since it is added and taken off.
UNKNOWN_SECONDS = 3600.0
MIN_RUNS = 8  # after which a command is known
WEIGHT = 1 / 8  # of the newest run in a command's smoothed time
MEAN_WEIGHT = 1 / 32  # of the newest run in the mean of all commands
BOUNDS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)  # seconds; the last bucket has what took longer
MAX_COMMANDS = 1000  # names that are kept; as many as an adapter may have


class Timers:
    """One timer for each key; setting a key again moves it. Every operation costs O(log n) at most, amortised.

    Keys of one moment share a place in the heap: calls that came together are due together. A key that moves to a later
    moment keeps its place, and gets the new one when the old one comes up: most calls end before.

    >>> timers = Timers()
    >>> timers.set("tea", 3.0)
    >>> timers.set("egg", 5.0)
    >>> timers.set("tea", 7.0)
    >>> timers.next()
    5.0
    >>> timers.due(6.0)
    ['egg']
    >>> timers.clear("tea")
    >>> timers.next() is None
    True
    """

    def __init__(self) -> None:
        self._at: dict[Hashable, float] = {}
        self._keys: dict[float, list[Hashable]] = {}  # by moment, in the order in which they were set
        self._moments: list[float] = []  # a heap
        self._entries = 0  # keys in all lists, for each timer one at its moment or before
        self.soonest = float("inf")  # no timer is due before this; lowered by `set`, made exact by `next`

    def __len__(self) -> int:
        return len(self._at)

    def keys(self) -> Set[Hashable]:
        return self._at.keys()

    def set(self, key: Hashable, at: float) -> None:
        before = self._at.get(key)
        self._at[key] = at
        if before is not None and before <= at:
            return
        self._add(key, at)
        if at < self.soonest:
            self.soonest = at
        # Without this a million short calls with a deadline of a minute would keep a million entries.
        if self._entries > 64 and self._entries > 4 * len(self._at):
            self._keys, self._moments, self._entries = {}, [], 0
            for kept, moment in self._at.items():
                self._add(kept, moment)

    def _add(self, key: Hashable, at: float) -> None:
        self._entries += 1
        keys = self._keys.get(at)
        if keys is None:
            self._keys[at] = [key]
            heappush(self._moments, at)
        else:
            keys.append(key)

    def clear(self, key: Hashable) -> None:
        self._at.pop(key, None)

    def next(self) -> float | None:
        """Return when the next timer is due; None if there is none."""
        while self._moments:
            at = self._moments[0]
            keys = self._keys[at]
            while keys:
                if self._at.get(keys[-1]) == at:
                    self.soonest = at
                    return at
                self._entries -= 1
                self._add_later(keys.pop(), at)
            del self._keys[heappop(self._moments)]
        self.soonest = float("inf")
        return None

    def due(self, now: float) -> list[Hashable]:
        """Remove and return every key whose time has come, earliest first."""
        due = []
        while (at := self.next()) is not None and at <= now:
            keys = self._keys.pop(heappop(self._moments))
            self._entries -= len(keys)
            for key in keys:
                if self._at.get(key) == at:
                    del self._at[key]
                    due.append(key)
                else:
                    self._add_later(key, at)
        return due

    def _add_later(self, key: Hashable, passed: float) -> None:
        """Give a key whose old moment has come up the place of its new one, if it has one."""
        at = self._at.get(key)
        if at is not None and at > passed:
            self._add(key, at)


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
