"""Runs one pool: carries out the actions of its pure core, and reports back what happens.

Read `runner`, then `worker_handle` (one worker's process and link) and `templates` (the processes that fork workers).
"""
