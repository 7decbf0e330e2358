"""The broker's two gRPC ends.

Read `link` (the stream to one worker), `service` (what clients call), then `session` (the stream of one client).
"""

MAX_MESSAGE = 2**28 + 2**24  # bytes of one that arrives: the largest max_payload, and room for what is around it
