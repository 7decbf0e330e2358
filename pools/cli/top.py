"""`snakepit top`: live pools, workers and queue in the terminal, the busiest first. q or Ctrl-C ends it.

every second: status ─▶ Screen (the last status, and its time) ─▶ one frame
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.status import BrokerStatus, PoolStatus, WorkerStatus
from snakepit.pools.cli.output import UNREACHABLE, report_errors, terminal
from snakepit.pools.cli.parameters import PATIENCE
from snakepit.pools.cli.project import find_address
from snakepit.pools.cli.status import STYLES, drain_line
from snakepit.pools.cli.tables import Fitted
from snakepit.pools.cli.units import duration, megabytes, span
from snakepit.pools.client import connect

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType

    from snakepit.pools.client import Client

NARROW = 120  # columns where the terminal's width is not known
QUIT = (b"q", b"Q", b"\x03")


def register(app: typer.Typer) -> None:
    app.command("top")(top)


def top(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Print once and exit (default when standard output is not a terminal).")
    ] = False,
    interval: Annotated[float, typer.Option(min=0.1, max=60.0, help="Seconds between two updates.")] = 1.0,
) -> None:
    """Watch pools, workers and queues live, the busiest first; press q to quit. Exits with 3 if no broker answers."""

    with report_errors():
        client = connect(find_address())
    on_terminal = sys.stdout.isatty() and sys.stdin.isatty()
    console = terminal(width=None if sys.stdout.isatty() else NARROW, no_color=bool(os.environ.get("NO_COLOR")))
    screen = Screen(str(client.target))
    if once or not on_terminal:
        screen.ask(client)
        console.print(frame(screen, time.time(), rows=10_000))
    else:
        watch(client, screen, console, interval)
    if screen.away:
        raise typer.Exit(UNREACHABLE)


@dataclass(slots=True)
class Screen:
    """The last status, its time, and since when the broker does not answer."""

    address: str
    status: BrokerStatus | None = None
    status_at: float = 0.0
    away: str = ""  # why it does not answer
    away_since: float = 0.0
    back_at: float = 0.0
    finished: dict[str, tuple[float, int]] = field(default_factory=dict)  # by pool: time, calls done by then
    rates: dict[str, float] = field(default_factory=dict)  # by pool: calls a second between the last two statuses

    def ask(self, client: Client) -> None:
        try:
            self.update(client.status(timeout=PATIENCE), time.time())
        except BrokerError as error:
            self.miss(error.message, time.time())

    def update(self, status: BrokerStatus, now: float) -> None:
        if self.away:
            self.away, self.back_at = "", now
        for pool in status.pools:
            before, count = self.finished.get(pool.name, (now, pool.finished))
            if now > before:
                self.rates[pool.name] = max(0.0, (pool.finished - count) / (now - before))
            self.finished[pool.name] = now, pool.finished
        self.status, self.status_at = status, now

    def miss(self, why: str, now: float) -> None:
        if not self.away:
            self.away_since = now
        self.away = why


def watch(client: Client, screen: Screen, console: Console, interval: float) -> None:
    """Draw until a key or Ctrl-C ends it; then restore the terminal, also after an error."""
    from rich.live import Live

    with keys() as pressed, contextlib.suppress(KeyboardInterrupt):
        screen.ask(client)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(frame(screen, time.time(), rows=console.height - 8), refresh=True)
                if pressed(interval):
                    return
                screen.ask(client)


@contextlib.contextmanager
def keys() -> Iterator[Callable[[float], bool]]:
    """A function that waits for a key to quit. The terminal sends single keys, and signals as before."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def pressed(seconds: float) -> bool:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([descriptor], [], [], left)[0]:
                return False
            key = os.read(descriptor, 1)
            if not key or key in QUIT:  # nothing to read: the terminal is closed
                return True
        return False

    try:
        tty.setcbreak(descriptor)
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def frame(screen: Screen, now: float, rows: int) -> Group:
    """The whole screen at one moment; `rows` is the number of lines for pools and workers."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    if screen.away:
        since = f"{now - screen.away_since:.0f} s"
        parts.append(Text(f"no broker has answered for {since}: {screen.away}", "bold red"))
    elif screen.back_at and now - screen.back_at < 5.0:
        parts.append(Text("the broker is back", "bold green"))
    if screen.status is None:
        return Group(*parts)
    node = screen.status.node
    age = now - screen.status_at
    stale = f"status is {age:.0f} s old" if age >= 2.0 else "live"
    head = f"broker {node.name} (pid {node.pid}), up {duration(node.uptime)}, {stale}; q quits"
    parts.append(Text(head, "yellow" if age >= 2.0 else "bold"))
    if node.draining:
        parts.append(Text(f"draining: {drain_line(node)}", "bold yellow"))
    parts += [Text(f"problem: {one}", "bold red") for one in node.problems]
    pools, workers = screen.status.pools, screen.status.workers
    parts += [_pools(screen, pools), _workers(workers, max(1, rows - len(pools)), now)]
    return Group(*parts)


def _pools(screen: Screen, pools: Sequence[PoolStatus]) -> Fitted:
    from rich.text import Text

    ranked = sorted(pools, key=lambda one: (-_use(one), -one.waiting, one.name))
    rates = [screen.rates.get(pool.name) for pool in ranked]
    return Fitted(
        {
            "pool": [Text(pool.name) for pool in ranked],
            "state": [Text(pool.state, STYLES.get(pool.state, "")) for pool in ranked],
            "ready": [f"{pool.ready}/{pool.size}" for pool in ranked],
            "busy": [str(pool.busy) for pool in ranked],
            "free": [f"{pool.free}/{pool.slots}" for pool in ranked],
            "waiting": [str(pool.waiting) for pool in ranked],
            "oldest": [span(pool.oldest_wait) if pool.waiting else "-" for pool in ranked],
            "calls/s": ["-" if rate is None else f"{rate:.1f}" for rate in rates],
            "done": [str(pool.finished) for pool in ranked],
            "memory": [megabytes(pool.memory_mb or None) for pool in ranked],
        },
        less=("done", "oldest", "busy", "calls/s", "memory"),
    )


def _use(pool: PoolStatus) -> float:
    return pool.taken / pool.slots if pool.slots else 0.0


def _workers(workers: Sequence[WorkerStatus], rows: int, now: float) -> Fitted:
    from rich.text import Text

    ranked = sorted(workers, key=lambda one: (-one.load / max(1, one.capacity), -one.load, one.id))
    shown = ranked[:rows]
    columns: dict[str, list[str | Text]] = {
        "worker": [Text(one.id) for one in shown],
        "pid": [str(one.pid) for one in shown],
        "state": [Text(one.state, STYLES.get(one.state, "")) for one in shown],
        "load": [f"{one.load}/{one.capacity}" for one in shown],
        "served": [str(one.served) for one in shown],
        "age": [duration(max(0.0, now - one.started_at)) if one.started_at else "-" for one in shown],
        "memory": [megabytes(one.memory_mb) for one in shown],
        "gil": [one.gil for one in shown],
        "why": [Text(one.reason or _running(one)) for one in shown],
    }
    if len(ranked) > rows:
        for name, cells in columns.items():
            cells.append(f"... and {len(ranked) - rows} more" if name == "worker" else "")
    return Fitted(columns, less=("gil", "served", "age", "memory", "pid"))


def _running(worker: WorkerStatus) -> str:
    return ", ".join(f"{call.command} {span(call.seconds)}" for call in worker.calls[:3])
