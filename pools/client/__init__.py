"""The client of a broker: call warm workers from any thread, any event loop and any process of a machine.

    caller threads ──┐                              ┌─ Call, Cancel, Credit ─▶
    event loops ─────┼─▶ Session (one background ───┤  one gRPC stream         broker
    futures, map ────┘   thread, one event loop)    └◀─ Result, Chunk, Error ─

>>> from snakepit.pools.client import connect
>>> client = connect("/run/snakepit/broker.sock")           # no connection is made before the first call
>>> client is connect("/run/snakepit/broker.sock")          # one client, and one connection, for a process
True
"""

from snakepit.pools.client.address import Target, default_address
from snakepit.pools.client.arguments import Json
from snakepit.pools.client.call_messages import Answer, Chunk, Log, Progress
from snakepit.pools.client.client import Client
from snakepit.pools.client.pool import PoolClient
from snakepit.pools.client.registry import connect
from snakepit.pools.client.streams import AsyncStream, Stream
from snakepit.pools.client.tls import Tls

__all__ = [
    "Answer",
    "AsyncStream",
    "Chunk",
    "Client",
    "Json",
    "Log",
    "PoolClient",
    "Progress",
    "Stream",
    "Target",
    "Tls",
    "connect",
    "default_address",
]
