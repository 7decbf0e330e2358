"""A Django signal for each event of a broker.

event   in the broker's process, on the recorder's thread, in the order of the events: `at` (seconds since the epoch),
        `node` (its name) and `event` (a `pools.broker.events.Event`)

Exceptions of receivers are logged and change nothing. A slow receiver delays the event rows, and nothing else.
"""

from __future__ import annotations

from django.dispatch import Signal

event = Signal()
