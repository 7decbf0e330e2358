"""The REST API (django-ninja).

request ─▶ limits ─▶ auth ─▶ calls, streams ──▶ door.broker() ─▶ broker
                          └▶ pools, observed ─▶ rows, snapshot
every refusal, from anywhere ─▶ errors ─▶ {"error": {"code", "message", "outcome", "details"}}
"""
