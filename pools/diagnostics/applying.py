"""Advice for the pools of this project, from the broker's status and the rows; and the order that applies it.

status ─┐
rows   ─┼─▶ judgements ─▶ apply(key): judged once more ─▶ operations.change_pool ─▶ row, audit, broker
machine ┘
"""

from __future__ import annotations

from typing import Protocol

from snakepit.pools import conf
from snakepit.pools.broker.errors import ManagedBySettings, NotAdvised
from snakepit.pools.broker.spec import InvalidSpec, PoolSpec
from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.diagnostics.advice import ENOUGH, Advice, Enough, Judgement
from snakepit.pools.diagnostics.machine import room_here
from snakepit.pools.diagnostics.recommendations import judge
from snakepit.pools.models import Pool
from snakepit.pools.operations import orders
from snakepit.pools.operations.orders import Applies, Change, Order

ANSWER = 1.5  # seconds that the broker may take for the status that is judged


class Asks(Applies, Protocol):
    """The part of the client that advice needs."""

    def status(self, pool: str = "", timeout: float = ...) -> BrokerStatus: ...


def definitions() -> dict[str, PoolSpec]:
    """The enabled pools' rows. An invalid one gets no advice; the doctor reports it."""
    found = {}
    for row in Pool.objects.filter(enabled=True):
        try:
            found[row.name] = row.to_spec()
        except InvalidSpec:
            continue
    return found


def judgements(status: BrokerStatus, enough: Enough = ENOUGH) -> list[Judgement]:
    """The judgement of every rule on every pool of a status."""
    machine = room_here(conf.broker_address(), status.node.pid)
    return judge(status.pools, definitions(), status.workers, machine, enough)


def settings_line(advice: Advice) -> str:
    """What to write into the settings, for a pool that they define; empty: its row may be changed."""
    if not Pool.objects.filter(name=advice.pool, source=Pool.Source.SETTINGS).exists():
        return ""
    place = f'SNAKEPIT["POOLS"]["{advice.pool}"]'
    return "; ".join(f'{place}["{name}"] = {value!r}' for name, value in advice.values.items())


def apply(broker: Asks, key: str, order: Order, enough: Enough = ENOUGH) -> Change:
    """Apply the advice with this key, if it still holds. Raises NotAdvised, ManagedBySettings, DefinitionInvalid."""
    pool = key.partition(":")[2]
    found = (
        one.advice for one in judgements(broker.status(timeout=ANSWER), enough) if one.advice and one.advice.key == key
    )
    advice = next(found, None)
    line = settings_line(advice) if advice else ""
    if advice is None or line:
        with orders.recorded(order, "apply", pool, key):
            if advice is None:
                raise NotAdvised(f"{key} is not advised now: the numbers have changed.", details={"id": key})
            message = f"The settings define {pool}, and would take the change back. Write there: {line}"
            raise ManagedBySettings(message, details={"id": key, "line": line})
    return orders.change_pool(broker, advice.pool, advice.values, order)
