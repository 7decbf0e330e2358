"""The rows: desired ones, written by people (Pool, ApiKey), and observed ones, written by the recorder (the rest)."""

from pools.models.apikey import ApiKey
from pools.models.observed import Event, Node, Worker
from pools.models.pool import Pool

__all__ = ["ApiKey", "Event", "Node", "Pool", "Worker"]
