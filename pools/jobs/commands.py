"""The commands of a pool, as its broker last reported them. A broker that does not answer costs little time.

A frozen broker accepts connections and answers nothing, so each question runs in a thread with a bound.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from snakepit.pools.broker.errors import BrokerError, BrokerUnreachable, DeadlineExceeded
from snakepit.pools.broker.status import CommandInfo
from snakepit.pools.client import stand_in
from snakepit.pools.jobs.bounded_thread import BoundedThread, Hangs

if TYPE_CHECKING:
    from snakepit.pools.client import Client

PATIENCE = 0.5  # seconds that a caller waits for the broker
KEPT = 10.0  # seconds that an answer is used
SILENCE = 5.0  # seconds without questions to a broker that did not answer

Commands = Mapping[str, CommandInfo]


def is_idempotent(known: Commands, command: str) -> bool:
    """Whether a command may run twice; False if the pool does not have it."""
    found = known.get(command)
    return found is not None and found.idempotent


@dataclass(slots=True)
class _Answers:
    """The answers of one broker."""

    pools: dict[str, tuple[float, Commands]] = field(default_factory=dict)  # when, what
    silent_until: float = 0.0


class CommandCache:
    def __init__(self, patience: float = PATIENCE) -> None:
        self._answers: weakref.WeakKeyDictionary[Client, _Answers] = weakref.WeakKeyDictionary()
        self._thread = BoundedThread("snakepit-commands", "broker", patience)

    def clear(self) -> None:
        """Discard all answers: the broker is another one now."""
        self._answers.clear()

    def kept(self, client: Client, pool: str) -> Commands:
        """The last answer, however old, without a question to the broker; empty without one."""
        answers = self._answers.get(client)
        return answers.pools.get(pool, (0.0, {}))[1] if answers else {}

    def find(self, client: Client, pool: str, *, fresh: bool = False) -> Commands | None:
        """The commands by name; empty if the broker reports none yet, None if it does not answer."""
        stand_in.prepare(pool)
        answers = self._answers.setdefault(client, _Answers())
        now = time.monotonic()
        at, known = answers.pools.get(pool, (0.0, {}))
        if known and not fresh and now - at < KEPT:
            return known
        if now < answers.silent_until:
            return None if fresh else known or None
        try:
            found = {one.name: one for one in self._ask(client, pool)}
        except (BrokerUnreachable, DeadlineExceeded, Hangs):
            answers.silent_until = time.monotonic() + SILENCE
            return None if fresh else known or None
        except BrokerError:  # it has no such pool, or refuses this client: the call itself gets the error
            return {}
        answers.pools[pool] = (now, found)
        return found

    def _ask(self, client: Client, pool: str) -> tuple[CommandInfo, ...]:
        if stand_in.is_used():  # a broker of this process does not freeze, and a busy machine may need its time
            return client.commands(pool)
        found: tuple[CommandInfo, ...] = self._thread.run(lambda: client.commands(pool))
        return found


cache = CommandCache()
