"""What one caller does to another: idle streams, a key at full load, and anonymous connections.

    python -m benchmarks.shares streams --streams 1000 --seconds 20
    python -m benchmarks.shares load --seconds 60
    python -m benchmarks.shares anonymous --connections 500 --seconds 20

`load`: one key keeps calls, submissions of jobs and streams in flight; another key calls and submits. `anonymous`: half
of the connections send their headers line by line, half send 200 MB without a key. Each prints one JSON object. The
load comes from a process of its own on the same cores. Needs Linux, because it reads /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from benchmarks import job_streams
from benchmarks.stack import ROOT, Stack, running

CALLS, SUBMISSIONS, STREAMS = 64, 16, 64  # in flight of the key at full load
BODY = 200 * 2**20
CHUNK = b"x" * 65_536
JOB_SECONDS = 60.0  # after which a job counts as not started


class Http:
    """One connection that is kept: an HTTP client would cost more CPU than the server."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._head = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """The status and body of an answer; status 0: the connection ended."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            data = b"" if body is None else json.dumps(body).encode()
            writer.write(f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            answer = await reader.readexactly(length)
            if b"connection: close" in head:
                self.close()
            return int(head.split()[1]), answer
        except (OSError, EOFError, ValueError):
            self.close()
            return 0, b""

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
        self._streams = None


def percentile(times: list[float], share: float) -> float:
    return round(1000 * sorted(times)[int(share * (len(times) - 1))], 2) if times else 0.0


async def for_seconds(seconds: float, act: Callable[[], Awaitable[object]]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await act()


# The loads, in processes of their own


async def greedy(port: int, key: str, seconds: float) -> dict[str, Any]:
    """Calls, submissions and streams of one key, as many as it can; answers are counted by status."""
    found: dict[str, Counter[int]] = {name: Counter() for name in ("calls", "jobs", "streams")}

    async def call(http: Http) -> None:
        status, _ = await http.send("POST", "/api/pools/work/commands/echo", {"value": "x"})
        found["calls"][status] += 1
        await asyncio.sleep(0.05 if status in (0, 429) else 0)

    async def submit(http: Http) -> None:
        status, _ = await http.send(
            "POST", "/api/jobs", {"pool": "work", "command": "echo", "arguments": {"value": "x"}}
        )
        found["jobs"][status] += 1
        await asyncio.sleep(0.05 if status in (0, 429) else 0)

    async def stream() -> None:
        try:
            _, writer = await job_streams.follow(port, key, job)
        except (OSError, RuntimeError):
            found["streams"][0] += 1
            await asyncio.sleep(0.2)
            return
        found["streams"][200] += 1
        await asyncio.sleep(1)
        writer.close()

    def repeated(act: Callable[[Http], Awaitable[None]]) -> Awaitable[None]:
        http = Http(port, key)
        return for_seconds(seconds, lambda: act(http))

    job = await job_streams.waiting_job(port, key)
    await asyncio.gather(
        *(repeated(call) for _ in range(CALLS)),
        *(repeated(submit) for _ in range(SUBMISSIONS)),
        *(for_seconds(seconds, stream) for _ in range(STREAMS)),
    )
    return {name: {str(status): count for status, count in sorted(one.items())} for name, one in found.items()}


async def slow(end: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """Send a header line a second; return how it ended."""
    writer.write(b"POST /admin/login/ HTTP/1.1\r\n")
    while time.monotonic() < end:
        writer.write(b"X-Slow: 1\r\n")
        await writer.drain()
        with suppress(TimeoutError):
            await asyncio.wait_for(reader.read(1), 1)
            return "slow: ended by the server"
    return "slow: open at the end"


async def large(port: int, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """Send a large body to a page; return the status line."""
    path = ("/admin/login/", "/jobs/", "/playground/run/", "/static/x", "/api/jobs")[number % 5]
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    writer.write(f"{head}Content-Length: {BODY}\r\n\r\n".encode())
    answer = asyncio.ensure_future(reader.readline())
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())  # the server may reset it
    for _ in range(BODY // len(CHUNK)):
        if answer.done():
            break
        writer.write(CHUNK)
        await writer.drain()
    if not answer.done():
        answer.cancel()
        return "large: no answer yet"
    return f"large: {(await answer).decode().strip() or 'ended by the server'}"


async def strangers(port: int, connections: int, seconds: float) -> dict[str, Any]:
    """Connections without a key: slow headers, and large bodies for pages outside of the API."""
    found: Counter[str] = Counter()
    end, end_of_loop = time.monotonic() + seconds, asyncio.get_running_loop().time() + seconds

    async def once(send: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[str]]) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            found["refused"] += 1
            await asyncio.sleep(0.2)
            return
        try:
            async with asyncio.timeout_at(end_of_loop):
                found[await send(reader, writer)] += 1
        except TimeoutError:
            found["open at the end"] += 1
        except OSError:
            found["closed by the server"] += 1
        finally:
            writer.transport.abort()  # what waits in its buffer would hold `close` up
        await asyncio.sleep(0.1)

    halves = connections // 2, connections - connections // 2
    await asyncio.gather(
        *(for_seconds(seconds, lambda: once(partial(slow, end))) for _ in range(halves[0])),
        *(for_seconds(seconds, lambda: once(partial(large, port, found.total()))) for _ in range(halves[1])),
    )
    return dict(found)


def beside(*words: object) -> subprocess.Popen[str]:
    """Start a load in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.shares", *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


# The measurements


async def job_starts(port: int, key: str, seconds: float) -> tuple[list[float], Counter[int]]:
    """Submit a job each second; the seconds until each has begun, and how the submissions were answered."""
    http, starts, answers = Http(port, key), list[float](), Counter[int]()

    async def one() -> None:
        body = {"pool": "work", "command": "echo", "arguments": {"value": "x"}}
        status, answer = await http.send("POST", "/api/jobs", body)
        answers[status] += 1
        began = time.monotonic()
        while status in (200, 201, 202) and time.monotonic() - began < JOB_SECONDS:
            shown, row = await http.send("GET", f"/api/jobs/{json.loads(answer)['id']}")
            if shown == 200 and json.loads(row)["state"] not in ("queued", "waiting", "blocked"):
                break
            await asyncio.sleep(0.05)
        starts.append(time.monotonic() - began)
        await asyncio.sleep(max(0.0, 1 - starts[-1]))

    await for_seconds(seconds, one)
    http.close()
    return starts, answers


async def under_load(stack: Stack, seconds: float) -> dict[str, Any]:
    taker, other = job_streams.keys(stack)
    await job_streams.latencies(stack.port, other, 2)  # warm up
    idle = await job_streams.latencies(stack.port, other, min(seconds, 10))
    idle_starts, _ = await job_starts(stack.port, other, min(seconds, 5))
    with beside("greedy", "--port", stack.port, "--key", taker, "--seconds", seconds) as load:
        await asyncio.sleep(1)
        busy, (starts, answers) = await asyncio.gather(
            job_streams.latencies(stack.port, other, seconds - 2), job_starts(stack.port, other, seconds - 2)
        )
        taken = json.loads(load.communicate()[0])
    return {
        "seconds": seconds,
        "calls_p95_ms_idle": percentile(idle, 0.95),
        "calls_p95_ms_load": percentile(busy, 0.95),
        "p95_ratio": round(percentile(busy, 0.95) / percentile(idle, 0.95), 2),
        "calls": len(busy),
        "job_start_s_idle": round(max(idle_starts), 2),
        "job_start_s_load": round(max(starts), 2),
        "job_start_s_load_p50": round(sorted(starts)[len(starts) // 2], 2),
        "submissions": {str(status): count for status, count in answers.items()},
        "key_at_full_load": taken,
    }


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


async def among_strangers(stack: Stack, connections: int, seconds: float) -> dict[str, Any]:
    _, key = job_streams.keys(stack)
    (web,) = stack.programs()["web"]
    await job_streams.latencies(stack.port, key, 2)  # warm up
    idle = await job_streams.latencies(stack.port, key, min(seconds, 5))
    before, most, times, refused = rss_mb(web), 0.0, list[float](), Counter[int]()
    with beside("strangers", "--port", stack.port, "--connections", connections, "--seconds", seconds) as load:
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
            while load.poll() is None:
                began = time.perf_counter()
                with suppress(httpx.HTTPError):
                    url = f"http://127.0.0.1:{stack.port}/api/pools/work/commands/echo"
                    refused[(await client.post(url, json={"value": "x"})).status_code] += 1
                    times.append(time.perf_counter() - began)
                most = max(most, rss_mb(web))
                await asyncio.sleep(0.02)
        done = json.loads(load.communicate()[0])
    return {
        "connections": connections,
        "rss_mb_before": round(before, 1),
        "rss_mb_most": round(most, 1),
        "rss_mb_grown": round(most - before, 1),
        "answers_to_a_key": {str(status): count for status, count in refused.items()},
        "p95_ms_idle": percentile(idle, 0.95),
        "p95_ms_beside": percentile(times, 0.95),
        "slowest_ms_beside": percentile(times, 1.0),
        "anonymous": done,
    }


async def measure(stack: Stack, given: argparse.Namespace) -> dict[str, Any]:
    if given.what == "streams":
        return dict(await job_streams.measure(stack, given.streams, given.seconds))
    if given.what == "load":
        return await under_load(stack, given.seconds)
    return await among_strangers(stack, given.connections, given.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("streams", "load", "anonymous", "greedy", "strangers"))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--port", type=int, default=0, help="of the loads greedy and strangers alone")
    parser.add_argument("--key", default="", help="of the load greedy alone")
    given = parser.parse_args()
    with suppress(ValueError):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (given.streams + given.connections + 1000, most))
    if given.what == "greedy":
        print(json.dumps(asyncio.run(greedy(given.port, given.key, given.seconds))))
    elif given.what == "strangers":
        print(json.dumps(asyncio.run(strangers(given.port, given.connections, given.seconds))))
    else:
        with running() as stack:
            print(json.dumps(asyncio.run(measure(stack, given))))


if __name__ == "__main__":
    main()
