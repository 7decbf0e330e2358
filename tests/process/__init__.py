"""Tests with real processes, sockets, signals and databases.

`contract` runs fakes and real adapters through the same tests, `integration` the web side with a fake broker,
`acceptance` the whole product, and `browser` the dashboard in Chromium. Tests without processes are in tests/unit.
"""
