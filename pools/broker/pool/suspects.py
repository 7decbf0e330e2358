"""Commands that end their workers: their calls are refused for a while, and the pool serves its other commands.

    deaths above the pool's budget ─▶ whose? ─┬─ of a command ─▶ suspended 2 s ─▶ one trial call ─┬─ ends ─▶ resumed
                                              │                      ▲                            │
                                              │                      └─ twice as long, to 60 s ───┴─ dies
                                              └─ of none ─▶ the pool is failed (start_gate.py)

A command is to blame if more of its calls ended with a death than in another way; a batch counts as one call. Kills
from outside hit many calls that would have ended well, so they blame no command.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from random import Random

from snakepit.pools.broker import errors
from snakepit.pools.broker.pool.calls import Call
from snakepit.pools.broker.pool.recycle_policy import CRASH_LOOP_FAILURES, restart_delay

WINDOW = 60.0  # seconds in which deaths count
LEAST_DEATHS = 3  # of a command, before it is suspended
BUSY_RETRY = 1.0  # seconds after which a caller may ask again while a trial runs


@dataclass(slots=True)
class Suspension:
    why: str
    until: float
    count: int  # of suspensions in a row
    trials: set[int] = field(default_factory=set)  # the numbers of the calls that were let through
    tried: float = 0.0  # when the last of them was

    def admits(self, open_calls: Collection[int], now: float) -> bool:
        """Whether the next call is let through. One that runs for a minute does not hold up the next one."""
        return now >= self.until and (now >= self.tried + WINDOW or self.trials.isdisjoint(open_calls))


class Suspects:
    """The deaths at work of one pool within the last minute, and the commands that were running."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.deaths: deque[tuple[float, frozenset[str]]] = deque()  # only while there are any, the ends of calls count
        self._ended: dict[str, float] = {}  # calls of the commands that had a death, since the first one
        self.suspended: dict[str, Suspension] = {}
        self._counts: dict[str, int] = {}  # of suspensions in a row, of commands that are not suspended any more

    def ended(self, calls: Iterable[Call]) -> list[str]:
        """Note calls that ended without a death; return the commands that are resumed."""
        resumed = []
        for call in calls:
            if call.command in self._ended:
                self._ended[call.command] += 1 / call.batch.size if call.batch else 1
            found = self.suspended.get(call.command)
            if found is not None and call.id in found.trials:
                self._counts[call.command] = self.suspended.pop(call.command).count
                resumed.append(call.command)
        return resumed

    def died(self, commands: Iterable[str], now: float) -> int:
        """Note a death while these commands ran; return how many deaths count against the pool's budget."""
        while self.deaths and self.deaths[0][0] <= now - WINDOW:
            self.deaths.popleft()
        names, seen = frozenset(commands), frozenset[str]().union(*(of for _, of in self.deaths))
        # Before the new death: calls that ended well before the window would hide a command that kills now.
        for name in self._ended.keys() - seen:
            del self._ended[name]
            if name not in names:
                self._counts.pop(name, None)
        self.deaths.append((now, names))
        for name in names:
            self._ended.setdefault(name, 0)
        return self.unexplained

    @property
    def unexplained(self) -> int:
        """Deaths that no suspended command explains."""
        return sum(names.isdisjoint(self.suspended) for _, names in self.deaths)

    def suspend(self, commands: Iterable[str], allowed: int, why: str, now: float) -> list[str]:
        """After a death of these commands: suspend those that are to blame, until no more deaths than `allowed` count.

        A command that is suspended already is suspended again once its pause is over, by the death of its trial. The
        calls that ran when it was suspended say nothing new.
        """
        names = [name for name in sorted(commands) if name in self.suspended and now >= self.suspended[name].until]
        if self.unexplained > allowed:
            deaths = Counter(name for _, of in self.deaths for name in of)
            likely = [
                name
                for name, count in deaths.items()
                if name not in self.suspended and count >= LEAST_DEATHS and count > self._ended[name]
            ]
            names += sorted(likely, key=lambda name: (self._ended[name] - deaths[name], name))
        suspended = []
        for name in names:
            if name in self.suspended or self.unexplained > allowed:
                self._suspend(name, why, now)
                suspended.append(name)
        return suspended

    def _suspend(self, name: str, why: str, now: float) -> None:
        before = self.suspended.get(name)
        count = (before.count if before else self._counts.pop(name, 0)) + 1
        deaths = sum(name in of for _, of in self.deaths)
        delay = restart_delay(CRASH_LOOP_FAILURES + count - 1, self._rng)
        times = "once" if deaths == 1 else f"{deaths} times"
        sentence = f"`{name}` ended its worker {times} within {WINDOW:.0f} s; the last one: {why}"
        self.suspended[name] = Suspension(sentence, now + delay, count)

    def refusal(self, call: Call, open_calls: Collection[int], now: float) -> errors.CommandSuspended | None:
        """Return why a call is refused. None: it may run, perhaps as the trial of its command."""
        found = self.suspended.get(call.command)
        if found is None:
            return None
        if found.admits(open_calls, now):
            found.trials.intersection_update(open_calls)
            found.trials.add(call.id)
            found.tried = now
            return None
        return self.error(call.command, now)

    def error(self, command: str, now: float) -> errors.CommandSuspended:
        """Return the error of a call of a suspended command."""
        found = self.suspended[command]
        left = round(max(BUSY_RETRY, found.until - now), 1)
        when = f"The next call is tried in {left:g} s" if now < found.until else "A call of it is tried now"
        return errors.CommandSuspended(f"{found.why}. {when}.", retry_after=left)

    def refused(self, queue: Iterable[Call], now: float) -> list[tuple[Call, errors.CommandSuspended]]:
        """Return the waiting calls of suspended commands, each with its error. A trial may wait for a worker."""
        if not self.suspended:
            return []
        found = ((call, self.suspended.get(call.command)) for call in queue)
        return [(call, self.error(call.command, now)) for call, one in found if one and call.id not in one.trials]

    def names(self, now: float) -> tuple[str, ...]:
        """Return the commands that are suspended, without those that nothing has called for a minute."""
        return tuple(sorted(name for name, one in self.suspended.items() if now < one.until + WINDOW))

    def describe(self, now: float) -> str:
        """Return the suspended commands with the reasons, as text; empty: none."""
        found = [self.suspended[name].why for name in self.names(now)]
        return f"calls are refused: {'; '.join(found)}" if found else ""

    def reset(self) -> None:
        """A new definition, or an operator, gives every command another chance."""
        self.deaths.clear()
        self._ended.clear()
        self._counts.clear()
        self.suspended.clear()
