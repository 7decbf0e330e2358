"""The cost of open dashboards for the web process: CPU over wall time, and open database connections.

    snakepit up --demo                                     # in another terminal: prints the login link
    python -m benchmarks.dashboards LOGIN_LINK PID --streams 200 --seconds 30

PID is the process id of the web server (uvicorn). Needs Linux, because it reads /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx

TOPICS = "topic=banner&topic=needs&topic=totals&topic=pools&topic=feed&points=*"


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def databases(pid: int) -> int:
    """Open files of SQLite, and sockets to PostgreSQL's port."""
    names = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    there = [line.split()[2] for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(".sqlite3" in name for name in names) + sum(remote.endswith(":1538") for remote in there)


async def watch(client: httpx.AsyncClient, url: str, counted: list[int]) -> None:
    async with client.stream("GET", url) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            counted[0] += line.startswith("event:")
            counted[1] += len(line)


async def measure(login: str, pid: int, streams: int, seconds: float) -> dict[str, float]:
    parts, counted = urlsplit(login), [0, 0]
    limits = httpx.Limits(max_connections=streams + 10)
    async with httpx.AsyncClient(timeout=60, limits=limits, follow_redirects=True) as client:
        (await client.get(login)).raise_for_status()
        url = f"{parts.scheme}://{parts.netloc}/live/stream/?{TOPICS}"
        tasks = [asyncio.create_task(watch(client, url, counted)) for _ in range(streams)]
        await asyncio.sleep(5)  # all are connected and have received their first snapshot
        counted[:] = [0, 0]
        cpu, wall = cpu_seconds(pid), time.monotonic()
        await asyncio.sleep(seconds)
        cpu, wall = cpu_seconds(pid) - cpu, time.monotonic() - wall
        open_streams = sum(not task.done() for task in tasks)
        found = {"streams": open_streams, "cores": round(cpu / wall, 3), "database_connections": databases(pid)}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return {**found, "events_a_second": round(counted[0] / wall, 1), "kib_a_second": round(counted[1] / 1024 / wall, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("login")
    parser.add_argument("pid", type=int)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30.0)
    given = parser.parse_args()
    print(json.dumps(asyncio.run(measure(given.login, given.pid, given.streams, given.seconds))))


if __name__ == "__main__":
    main()
