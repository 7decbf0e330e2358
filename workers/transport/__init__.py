"""How calls and results travel; docs/explanation/transport.md describes it.

Three mechanisms make short calls cheaper, and one large calls. Each works without the others, and the environment can
switch it off:

    SNAKEPIT_FAST_PATH=0     messages pass through grpclib's public API (grpclib_internals.py)
    SNAKEPIT_DIRECT_REPLY=0  every result passes through the broker (direct_reply.py)
    SNAKEPIT_LOOP_OWNER=0    a background thread alone runs the event loop (loop_owner.py)
    SNAKEPIT_BUFFERS=0       large parts of values travel as text through the broker (buffers.py)

The client, the broker and the workers read these variables; a broker passes them on to its workers.
"""

from __future__ import annotations

import os

FAST_PATH = "SNAKEPIT_FAST_PATH"
DIRECT_REPLY = "SNAKEPIT_DIRECT_REPLY"
LOOP_OWNER = "SNAKEPIT_LOOP_OWNER"
BUFFERS = "SNAKEPIT_BUFFERS"
SWITCHES = (FAST_PATH, DIRECT_REPLY, LOOP_OWNER, BUFFERS)


def is_on(switch: str) -> bool:
    """Whether the environment leaves a mechanism on."""
    return os.environ.get(switch) != "0"
