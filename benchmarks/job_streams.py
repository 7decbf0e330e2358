"""The cost of idle streams of jobs: calls of another key with and without them, and the CPU of the web process.

    python -m benchmarks.job_streams --streams 1000 --seconds 20

One key opens the streams of one waiting job. Another key makes sequential calls. Needs Linux, because it reads /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import httpx

from benchmarks.stack import ROOT, Stack, running
from benchmarks.usage import cpu_seconds

MAKE_KEYS = """
from django.contrib.auth import get_user_model
from snakepit.pools.models import ApiKey
for name in ("reader", "caller"):
    owner = get_user_model().objects.create_superuser(name)
    print(ApiKey.create(name=name, owner=owner)[1])
"""


def keys(stack: Stack) -> tuple[str, str]:
    command = [sys.executable, "manage.py", "shell", "-v", "0", "-c", MAKE_KEYS]
    done = subprocess.run(command, cwd=ROOT, env=stack.environment, check=True, capture_output=True, text=True)
    reader, caller = done.stdout.strip().splitlines()[-2:]
    return reader, caller


async def waiting_job(port: int, key: str) -> str:
    body = {
        "pool": "work",
        "command": "echo",
        "arguments": {"value": "x"},
        "run_after": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
    }
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}) as client:
        answer = await client.post(f"http://127.0.0.1:{port}/api/jobs", json=body)
        answer.raise_for_status()
        return str(answer.json()["id"])


async def follow(port: int, key: str, job: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a stream by hand: a thousand HTTP clients would cost this process more than the server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"GET /api/jobs/{job}/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n\r\n"
    writer.write(head.encode())
    status = await reader.readline()
    if b" 200 " not in status:
        raise RuntimeError(f"the stream was refused: {status!r}")
    return reader, writer  # a writer that is not kept closes the connection


async def latencies(port: int, key: str, seconds: float) -> list[float]:
    """The seconds of sequential calls."""
    url, found, end = f"http://127.0.0.1:{port}/api/pools/work/commands/echo", list[float](), time.monotonic() + seconds
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        while time.monotonic() < end:
            began = time.perf_counter()
            (await client.post(url, json={"value": "x"})).raise_for_status()
            found.append(time.perf_counter() - began)
            await asyncio.sleep(0.01)
    return sorted(found)


def p99(times: list[float]) -> float:
    return round(1000 * times[int(0.99 * (len(times) - 1))], 2)


async def measure(stack: Stack, streams: int, seconds: float) -> dict[str, float]:
    reader, caller = keys(stack)
    (web,) = stack.programs()["web"]
    job = await waiting_job(stack.port, reader)
    await latencies(stack.port, caller, 2)  # warm up
    without = await latencies(stack.port, caller, seconds)
    began = time.monotonic()
    opened = [await follow(stack.port, reader, job) for _ in range(streams)]
    opening = time.monotonic() - began
    await asyncio.sleep(2)
    cpu, wall = cpu_seconds(web), time.monotonic()
    await asyncio.sleep(seconds)
    cores = (cpu_seconds(web) - cpu) / (time.monotonic() - wall)
    cpu, wall = cpu_seconds(web), time.monotonic()
    with_streams = await latencies(stack.port, caller, seconds)
    calling = (cpu_seconds(web) - cpu) / (time.monotonic() - wall)
    ended = sum(stream.at_eof() for stream, _ in opened)
    return {
        "streams": streams,
        "ended": ended,
        "opened_in_seconds": round(opening, 2),
        "idle_cores": round(cores, 3),
        "calling_cores": round(calling, 3),
        "p50_ms_without": round(1000 * without[len(without) // 2], 2),
        "p50_ms_with": round(1000 * with_streams[len(with_streams) // 2], 2),
        "p99_ms_without": p99(without),
        "p99_ms_with": p99(with_streams),
        "p99_ratio": round(p99(with_streams) / p99(without), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    with suppress(ValueError):
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (given.streams + 1000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        )
    with running() as stack:
        print(json.dumps(asyncio.run(measure(stack, given.streams, given.seconds))))


if __name__ == "__main__":
    main()
