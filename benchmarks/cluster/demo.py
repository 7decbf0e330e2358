"""The demo: three hosts with the demo's pools, callers, and a dashboard on each host."""

from __future__ import annotations

import secrets
import time
from typing import NoReturn

from benchmarks.cluster.network import HOSTS, SWITCH
from benchmarks.cluster.site import GPU, WEB_PORT, Site, site

USER = "demo"
FOR_EVER = 10.0**7  # seconds
RESTART = 10.0  # seconds between two looks for a broker that has ended


def run() -> NoReturn:
    """Run until Ctrl-C."""
    print("Starting three hosts. This takes some seconds.", flush=True)
    with site(demo=True) as made:
        made.start_web()
        print(text(made, _user()), flush=True)
        calls = ("12", str(FOR_EVER), str(made.home / "calls"))
        made.call_from(calls)
        while True:
            time.sleep(RESTART)
            made.restart_brokers()


def _user() -> str:
    """Create the user of the demo; return the password."""
    from django.contrib.auth import get_user_model

    password = secrets.token_urlsafe(9)
    get_user_model().objects.create_superuser(USER, password=password)
    return password


def text(made: Site, password: str) -> str:
    """What to open, and what to try."""
    lines = [f"log in as {USER} with the password {password}", ""]
    for host in HOSTS:
        label = "  gpu=yes" if host == GPU else ""
        pid = made.brokers[host.name].pid
        lines.append(f"node {host.name}  http://{host.address}:{WEB_PORT}/  broker pid {pid}{label}")
    killed, lost = HOSTS[0].name, HOSTS[1]
    lines += [
        "", "Try, in another terminal:",
        f"  kill -9 {made.brokers[killed].pid}   # the broker of {killed} dies; it starts again within {RESTART:.0f} s",
        f"  ip -n {SWITCH} link set {lost.port} nomaster   # {lost.name} loses its network",
        f"  ip -n {SWITCH} link set {lost.port} master bridge   # and has it again",
        f"The programs log to {made.home / 'programs.log'}. Ctrl-C ends everything.",
    ]  # fmt: skip
    return "\n".join(lines)
