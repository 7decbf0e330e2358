"""Measurements of a pool: how it is used, how its memory grows, how long starts take. Each module stands alone.

Read `histogram` and `usage` first.
"""
