"""Runs calls on the slots of one worker, without transport or process.

Read `runtime` (the queue and the slots), `execution` (one call), `async_commands` (its event loop) and `failure` (an
exception as a report). On their own: `parallelism` measures threads; `races` and `tracked_containers` find data races.
"""
