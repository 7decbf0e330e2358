"""The REST API (django-ninja).

request ─▶ limits ─▶ auth ─▶ calls, streams ──▶ shared.client() ─▶ broker
                          └▶ pools, observed ─▶ rows, snapshot
every refusal, from anywhere ─▶ errors ─▶ {"error": {"code", "message", "outcome", "details"}}
"""
