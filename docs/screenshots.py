"""Take the pictures of docs/images/: the dashboard of a demo under load, light and dark. `make screenshots` runs it.

its own demo ─▶ calls, jobs, orders and a crash ─▶ Chromium ─▶ PNG
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Browser, Page  # noqa: E402

from snakepit.pools.broker.errors import BrokerError  # noqa: E402
from snakepit.pools.client import Client, connect  # noqa: E402
from tests.demo import Demo, demo_running  # noqa: E402
from tests.process.browser.chromium import chromium  # noqa: E402

IMAGES = ROOT / "docs" / "images"
MOST = 3 * 2**20  # bytes of all pictures together
WIDTH, HEIGHT = 1360, 850
LOAD = float(os.environ.get("SCREENSHOTS_LOAD", "240"))  # seconds; the charts show five minutes
WORDS = ("heap", "socket", "generator", "pickle", "decimal", "regular expression", "thread", "json")
PICTURES = {
    "overview": "/", "pool": "/pools/digits/", "workers": "/workers/", "jobs": "/jobs/", "job": "", "playground": "",
    "diagnostics": "/diagnostics/", "audit": "/audit/",
}  # fmt: skip


class Load:
    """Callers that make calls until the block ends."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(number,), daemon=True) for number in range(7)]

    def _call(self, number: int) -> None:
        rng = random.Random(number)
        while not self.over.wait(rng.expovariate(4)):
            try:
                self._once(number, rng)
            except BrokerError:  # some calls fail on purpose
                continue

    def _once(self, number: int, rng: random.Random) -> None:
        if number % 3 == 0:
            pixels = [float(rng.randrange(17)) for _ in range(64)]
            rows = [pixels] * rng.randrange(100, 1000)
            self.client.call("digits", "classify_many", {"rows": rows if rng.random() > 0.03 else [[1.0]]})
        elif number % 3 == 1:
            list(self.client.stream("docs", "search", query=rng.choice(WORDS)))
        else:
            self.client.call("primes", "count", below=rng.randrange(10_000, 3_000_000))

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self.over.set()
            for thread in self._threads:
                thread.join(10)


def make_history(demo: Demo) -> None:
    """Submit jobs of every kind, give some orders and kill a worker."""
    for below in (1_000_000, 5_000_000, 250_000):
        demo.run("submit", "primes", "count", json.dumps({"below": below}), "--tag", "nightly")
    for word in WORDS[:5]:
        demo.run("submit", "docs", "search", json.dumps({"query": word}), "--tag", "index")
    demo.run("submit", "primes", "count", '{"below": -1}', "--tag", "nightly")
    demo.run("submit", "digits", "sample", '{"index": 100000}')
    demo.run("submit", "primes", "factor", '{"n": 99999640000243}', "--run-after", "2040-01-01T06:00:00Z")
    demo.run("submit", "primes", "primes", '{"start": 1000000000000, "limit": 20000}', "--tag", "long")
    demo.run("pause", "docs", "--reason", "a new index is coming")
    demo.run("resume", "docs", "--reason", "the new index is there")
    demo.run("recycle", "digits", "--reason", "release 42")
    time.sleep(20)  # the recycle ends before the worker is killed
    worker = next(one for one in json.loads(demo.run("status", "--json").stdout)["workers"] if one["pool"] == "digits")
    os.kill(worker["pid"], signal.SIGKILL)
    demo.run("scale", "digits", "3", "--reason", "the evening rush")


def take(browser: Browser, demo: Demo, scheme: str, signed_in: Any) -> None:
    context = browser.new_context(
        base_url=demo.url, viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme,  # type: ignore[arg-type]
        storage_state=signed_in,  # the link works once
    )  # fmt: skip
    page = context.new_page()
    for name, path in PICTURES.items():
        open_picture(page, demo, name, path)
        page.wait_for_selector("[aria-busy=true]", state="detached")
        page.wait_for_timeout(2500)  # until charts and live regions are drawn
        page.screenshot(path=IMAGES / f"{name}-{scheme}.png")
    context.close()


def open_picture(page: Page, demo: Demo, name: str, path: str) -> None:
    if name == "job":
        asked = {"start": 10**10, "limit": 800}
        ident = demo.run("submit", "primes", "primes", json.dumps(asked), "--tag", "nightly").stdout.strip()
        page.goto(f"/jobs/{ident}/")
        page.locator(".progress strong", has_text=re.compile(r"^([3-9]\d|100) %$")).wait_for(timeout=60_000)
    elif name == "playground":
        page.goto("/playground/?pool=docs&command=search")
        page.fill("#field-query", "priority queue")
        page.click("[data-go]")
        page.get_by_text(re.compile(r"completed")).wait_for()
    else:
        page.goto(path)


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with demo_running() as demo, chromium() as browser:
        client = connect(str(demo.runtime / "broker.sock"))
        with Load(client).running():
            watched = browser.new_page()  # the hub records points for the charts only while a page is open
            watched.goto(demo.line(r"(http://\S+/demo-login/\S+)")[1])
            begun = time.monotonic()
            make_history(demo)
            watched.wait_for_timeout(1000 * max(0.0, LOAD - (time.monotonic() - begun)))
            for scheme in ("light", "dark"):
                take(browser, demo, scheme, watched.context.storage_state())
    sizes = {path.name: path.stat().st_size for path in sorted(IMAGES.glob("*.png"))}
    for name, size in sizes.items():
        print(f"{size / 1024:6.0f} KiB  {name}")
    if sum(sizes.values()) > MOST:
        sys.exit(f"The pictures have {sum(sizes.values()) / 2**20:.1f} MiB together, more than {MOST / 2**20:.0f} MiB.")


if __name__ == "__main__":
    main()
