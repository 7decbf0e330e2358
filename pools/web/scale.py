"""A change of a pool's size from the web, with a warning in its note if the broker's machine cannot hold it."""

from __future__ import annotations

from dataclasses import replace

from snakepit.pools import conf
from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.client import shared
from snakepit.pools.diagnostics.scale_room import facts_here
from snakepit.pools.diagnostics.scaling import memory_sentence, memory_warning
from snakepit.pools.operations import orders
from snakepit.pools.operations.orders import Change, Order
from snakepit.pools.web.last_status import last_status


def scale(pool: str, size: int, order: Order) -> Change:
    """Scale, and add the warning to the note. The memory is read first: the new workers would take part of it."""
    warning = _warning(pool, size)
    done = orders.scale(shared.client(), pool, size, order)
    return replace(done, note=f"{done.note} {warning}".strip())


def room(status: BrokerStatus, pool: str) -> str:
    """How many workers the memory of the broker's machine holds; empty: not known here."""
    facts = facts_here(status, pool, conf.broker_address())
    return memory_sentence(facts) if facts else ""


def _warning(pool: str, size: int) -> str:
    try:
        found = last_status.ask()
    except BrokerError:  # the order reports this itself
        return ""
    facts = facts_here(found.status, pool, conf.broker_address()) if found.trouble is None else None
    return memory_warning(facts, size) if facts else ""
