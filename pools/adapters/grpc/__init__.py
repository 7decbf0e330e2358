"""The broker's two gRPC ends.

Read `link` (the stream to one worker), `service` (what clients call), then `session` and `batch` (the stream of one
client, and how its messages are put together). `limits` holds the bounds.
"""
