"""What the broker reads from the database, and what it records.

Read `definitions` (pools that the broker runs) and `recorder` (nodes, workers and events, written by a thread). Around
it: `event_log`, `recent_events`, `metrics` (Prometheus) and `minute_aggregator` (sums for the charts).
"""
