"""gunicorn for the site under WSGI: gunicorn -c deploy/gunicorn.conf.py snakepit.site.wsgi:application

Each stream of events and each call occupies a thread while it lasts. For many streams, use uvicorn.
"""

import os
from typing import Any

bind = os.environ.get("SNAKEPIT_BIND", "127.0.0.1:8000")
worker_class = "gthread"
workers = 2
threads = 64

# Beyond these, connections wait in the kernel's queue, and then are refused.
worker_connections = 512
backlog = 1024

# The site's middleware TrustedProxies reads the headers of proxies; gunicorn trusts none.
forwarded_allow_ips = ""

keepalive = 5  # seconds for the next request of a connection
graceful_timeout = 20
limit_request_line = 8190  # bytes
limit_request_fields = 100
limit_request_field_size = 8190


def when_ready(server: Any) -> None:
    """Hide this process from adapters that run as the same user; its workers do it themselves."""
    from snakepit.pools.adapters.processes.hiding import hide

    hide()
