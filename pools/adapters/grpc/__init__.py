"""The broker's gRPC: the service for clients (service.py, session.py) and the links to workers (link.py)."""

MAX_MESSAGE = 2**28 + 2**24  # bytes of one that arrives: the largest max_payload, and room for what is around it
