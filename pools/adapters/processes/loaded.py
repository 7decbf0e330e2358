"""Takes what a process has loaded out of the sight of Python's garbage collector.

A full collection scans all objects of a process, and stops all its threads meanwhile. So Python makes one when there
are a quarter more objects than after the last one. A web server and a Celery worker have 150,000, most of them of
modules and classes. Their garbage in cycles, and the interpreter's lists of free tuples, then grow for a long time,
which looks like a leak. Without the loaded objects, full collections come in time and take milliseconds.
"""

from __future__ import annotations

import gc


def freeze_loaded() -> None:
    """Call it once, when the modules of the process are loaded and nothing is served yet."""
    gc.collect()  # a frozen object is never freed as a part of a cycle
    gc.freeze()
