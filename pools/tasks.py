"""Celery tasks. Beat is the clock of the lifecycle: a tick reads no rows and decides nothing, it tells the broker."""

from __future__ import annotations

import logging

from celery import shared_task

from pools import conf
from pools.api import door
from pools.broker.errors import BrokerError

logger = logging.getLogger("snakepit.tasks")


@shared_task(name="snakepit.sweep", ignore_result=True)
def sweep() -> int:
    """Have the broker judge the age, memory and health of every worker; returns how many it will replace."""
    try:
        reply = door.broker().sweep("beat", conf.current().sweep_interval)
    except BrokerError as error:
        # Not raised: a broker that restarts misses a tick or two, and a traceback each time would hide real trouble.
        logger.warning("the sweep did not reach the broker: %s", error)
        return 0
    return int(reply["planned"])
