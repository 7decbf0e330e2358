"""The Python interpreters of this machine that can run workers.

Read `interpreter` (one interpreter: trust, facts, what is missing), then `known` (finds them and chooses for a pool).
"""
