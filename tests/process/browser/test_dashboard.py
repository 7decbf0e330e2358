"""The dashboard as a person sees it: Chromium on a running demo, with real workers, jobs and deaths.

One module, so that Playwright's event loop is gone before the next module's tests begin theirs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect

from tests.brokers import ROOT
from tests.conftest import unavailable
from tests.demo import Demo, demo_running
from tests.process.browser import chromium

pytestmark = pytest.mark.browser
VENDOR = Path(__file__).parent / "vendor"
AXE = (VENDOR / "axe-core-4.14.1.min.js").read_text()
PHONE: Any = {"width": 390, "height": 844}
DESK: Any = {"width": 1280, "height": 720}
SLOW_JOB = {"start": 10**12, "limit": 1_000_000}
PATIENCE = 120_000  # milliseconds; a bound for a machine under load, never a wait
expect.set_options(timeout=PATIENCE)
LOOKER = """
from django.contrib.auth import get_user_model
get_user_model().objects.create_user("lena", password="only looks", is_staff=True)
"""


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    try:
        chromium.program()
    except chromium.Missing as missing:
        unavailable(str(missing))
    with demo_running() as running:
        yield running


@pytest.fixture(scope="module")
def browser(demo: Demo) -> Iterator[Browser]:
    with chromium.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def signed_in(demo: Demo, browser: Browser) -> dict[str, Any]:
    """The cookies of the demo's user."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(demo.line(r"(http://\S+/demo-login/\S+)")[1])
    state = dict(context.storage_state())
    context.close()
    return state


@pytest.fixture
def context(demo: Demo, browser: Browser, signed_in: Any) -> Iterator[BrowserContext]:
    opened = browser.new_context(base_url=demo.url, storage_state=signed_in)
    opened.set_default_timeout(PATIENCE)
    yield opened
    opened.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture(scope="module")
def job(demo: Demo) -> str:
    """A job that has ended."""
    done = demo.run("submit", "primes", "primes", '{"limit": 40}', "--tag", "browser", "--wait", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return str(json.loads(done.stdout.splitlines()[-1])["id"])


def status(demo: Demo) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(demo.run("status", "--json").stdout)
    return found


def paths(page: Page, demo: Demo, job: str) -> list[str]:
    """Every page of the navigation, and one of each kind behind them."""
    page.goto("/")
    found = [link.get_attribute("href") or "" for link in page.locator(".side ul").first.locator("a").all()]
    worker = next(one["id"] for one in status(demo)["workers"] if one["pool"] == "digits")
    found += ["/pools/digits/", "/pools/digits/recycle/", "/pools/digits/scale/", f"/workers/{worker}/"]
    found += [f"/nodes/{status(demo)['node']['name']}/drain/"]
    found += [f"/jobs/{job}/", f"/jobs/{job}/clone/", "/jobs/?state=failed", "/playground/?pool=primes&command=primes"]
    return found


def settle(page: Page) -> None:
    """Until what the page fetches by itself is there."""
    expect(page.locator("body")).to_have_attribute("data-state", "live")
    expect(page.locator("[aria-busy=true]")).to_have_count(0)


def violations(page: Page) -> list[str]:
    """What axe calls serious or critical, with the place."""
    page.evaluate(AXE)
    found = page.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations")
    return [
        f"{one['id']} ({one['impact']}): {one['nodes'][0]['html'][:160]}: {one['nodes'][0].get('failureSummary', '')}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def too_wide(page: Page) -> list[str]:
    """The page scrolls sideways as a whole; only its tables may."""
    wide = page.evaluate("document.documentElement.scrollWidth")
    return [f"{wide} pixels wide on a screen of {PHONE['width']}"] if wide > PHONE["width"] else []


OTHER_PAGES = (
    "/admin/", "/admin/snakepit_pools/pool/", "/admin/snakepit_pools/pool/add/", "/admin/snakepit_pools/apikey/add/",
    "/admin/snakepit_pools/job/", "/admin/snakepit_pools/audit/", "/admin/snakepit_pools/event/",
    "/admin/auth/user/add/", "/admin/auth/group/1/change/", "/admin/password_change/", "/admin/login/?next=/admin/",
    "/api/docs",
)  # fmt: skip


def test_no_page_of_the_admin_and_the_api_breaks_the_content_security_policy(context: BrowserContext) -> None:
    context.add_init_script(
        "addEventListener('securitypolicyviolation', e => console.error('CSP:', e.violatedDirective, e.blockedURI))"
    )
    page, complaints = context.new_page(), list[str]()
    page.on("console", lambda said: complaints.append(f"{page.url}: {said.text}") if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
    for path in OTHER_PAGES:
        answer = page.goto(path)
        assert answer
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        page.wait_for_load_state("networkidle")
    page.locator(".opblock-summary").first.click()
    expect(page.locator(".opblock-body").first).to_be_visible()
    assert complaints == []
    with page.expect_console_message(lambda said: "script-src-attr" in said.text):
        page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    assert page.title() != "1"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_opens_without_a_complaint_of_the_browser_or_of_axe(
    demo: Demo, browser: Browser, signed_in: Any, job: str, scheme: Any
) -> None:
    context = browser.new_context(base_url=demo.url, storage_state=signed_in, color_scheme=scheme)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("response", lambda answer: complaints.append(f"{answer.status}") if answer.status >= 400 else None)
    found: dict[str, list[str]] = {}
    for path in paths(page, demo, job):
        page.goto(path)
        settle(page)
        found[path] = complaints + violations(page)
        if scheme == "dark":
            page.set_viewport_size(PHONE)
            found[path] += [one for one in violations(page) if "scrollable-region" in one] + too_wide(page)
            page.set_viewport_size(DESK)
        complaints.clear()
    wrong = [f"{path}: {one}" for path, said in found.items() for one in said]
    assert not wrong, "\n".join(wrong)
    page.keyboard.press("?")
    expect(page.locator("dialog#help")).to_be_visible()
    assert violations(page) == []
    page.keyboard.press("Control+k")
    expect(page.locator("#palette [role=option]", has_text="digits").first).to_be_visible()
    assert violations(page) == []
    context.close()


def test_the_palette_goes_anywhere_with_the_keyboard_alone(page: Page, demo: Demo, job: str) -> None:
    page.goto("/audit/")
    settle(page)
    chosen = page.locator("#palette [aria-selected=true]")

    def find(text: str, first: str) -> None:
        page.keyboard.press("Control+k")
        expect(page.get_by_role("combobox", name="Page, pool, worker, job or action")).to_be_focused()
        page.keyboard.type(text)
        expect(chosen).to_have_count(1)
        expect(chosen).to_contain_text(first)

    find("digits", "digits")
    expect(page.locator("#palette [role=status]")).to_contain_text("found")
    page.keyboard.press("ArrowDown")
    expect(chosen).to_contain_text("digits-")
    expect(page.locator("#palette input")).to_have_attribute("aria-activedescendant", "palette-1")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_url("**/pools/digits/")
    find("rec dig", "Recycle digits")
    page.keyboard.press("Enter")
    page.wait_for_url("**/pools/digits/recycle/")
    expect(page.locator("[data-confirm]")).to_be_visible()
    find(job[-12:], job)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/jobs/{job}/")
    page.keyboard.press("Control+k")
    page.keyboard.type("there is nothing like this")
    expect(page.locator("#palette [role=status]")).to_have_text("No results")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(page.locator("#palette")).to_be_hidden()


def test_the_time_axis_of_a_chart_is_in_utc_as_all_other_times(demo: Demo, browser: Browser, signed_in: Any) -> None:
    elsewhere = browser.new_context(
        base_url=demo.url, storage_state=signed_in, timezone_id="Asia/Tokyo",
        bypass_csp=True,  # wait_for_function reads again by an eval in the page, which the policy of the site forbids
    )  # fmt: skip
    elsewhere.set_default_timeout(PATIENCE)
    elsewhere.add_init_script("""
        window.drawn = [];
        const fill = CanvasRenderingContext2D.prototype.fillText;
        CanvasRenderingContext2D.prototype.fillText = function (text, ...more) {
            window.drawn.push(text);
            return fill.call(this, text, ...more);
        };
    """)
    page = elsewhere.new_page()
    page.goto("/")
    page.wait_for_function("window.drawn.some(text => text.endsWith(' UTC'))", timeout=PATIENCE)
    times = [text for text in page.evaluate("window.drawn") if text.endswith(" UTC")]
    now = datetime.now(UTC)
    hours = {f"{now - timedelta(hours=ago):%H}" for ago in (0, 1)}
    assert {text[:2] for text in times} <= hours
    elsewhere.close()


@pytest.mark.parametrize("place", ["notice bad", "card pad"])
def test_a_word_that_is_wider_than_a_phone_is_broken(page: Page, place: str) -> None:
    page.set_viewport_size(PHONE)
    page.goto("/pools/digits/")
    reason = f'<div class="{place}"><p>{"a.module.of.a.project." * 4}Refused: the reason</p></div>'
    page.evaluate("html => document.getElementById('main').insertAdjacentHTML('afterbegin', html)", reason)
    assert too_wide(page) == []


def test_the_long_tables_of_a_pool_are_closed_on_a_phone_alone(page: Page) -> None:
    page.goto("/pools/digits/")
    rows = page.locator("tr[data-command]")
    expect(rows.first).to_be_visible()
    page.set_viewport_size(PHONE)
    page.reload()
    expect(rows.first).to_be_hidden()
    page.locator("#fold-commands > summary").focus()
    page.keyboard.press("Enter")
    expect(rows.first).to_be_visible()


def test_a_part_that_is_fetched_again_keeps_its_ages(page: Page) -> None:
    page.goto("/")
    settle(page)
    fill = """() => {
        const part = document.createElement("p"), at = Date.now() / 1000 - 7000;
        part.innerHTML = `<time data-ago="${at}">10:19:52</time>`;
        document.querySelector("main").append(part);
        document.dispatchEvent(new CustomEvent("snakepit:fresh", {detail: part}));
        return part.textContent;  // in the task that filled it: the clock of the page has not run
    }"""
    assert page.evaluate(fill) == "2 h ago"


def test_the_row_that_j_chose_stays_chosen_when_the_table_updates(page: Page, demo: Demo, job: str) -> None:
    page.goto("/jobs/")
    rows = page.locator("tr[data-job]")
    expect(rows.first).to_be_visible()
    page.keyboard.press("j")
    chosen = page.locator("tr[data-chosen]").get_attribute("data-job")
    new = demo.run("submit", "primes", "primes", '{"limit": 40}').stdout.strip()
    expect(page.locator(f'tr[data-job="{new}"]')).to_be_visible()
    expect(page.locator("tr[data-chosen]")).to_have_attribute("data-job", chosen or "")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"/jobs/{chosen}/"))


def test_an_entry_of_the_palette_stays_chosen_when_the_list_arrives_later(page: Page) -> None:
    waiting: list[Route] = []
    page.goto("/pools/digits/")
    expect(page.locator("main .actions a.button")).not_to_have_count(0)
    settle(page)
    page.route("**/palette/**", lambda route: waiting.append(route))
    with page.expect_request("**/palette/**"):
        page.keyboard.press("Control+k")
    chosen = page.locator("#palette [aria-selected=true]")
    page.keyboard.press("ArrowDown")
    second = chosen.inner_text()
    found = page.locator("#palette [role=status]").inner_text()
    waiting[0].continue_()
    expect(page.locator("#palette [role=status]")).not_to_have_text(found)
    expect(chosen).to_have_text(second, use_inner_text=True)


def test_the_pages_say_what_they_know_without_javascript(
    demo: Demo, browser: Browser, signed_in: Any, job: str
) -> None:
    context = browser.new_context(base_url=demo.url, storage_state=signed_in, java_script_enabled=False)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto("/")
    expect(page.locator("[data-pool=digits]")).to_be_visible()
    expect(page.locator("noscript span")).to_be_visible()
    expect(page.locator(".top button")).to_have_count(4)
    for button in page.locator(".top button").all():
        expect(button).to_be_hidden()
    page.goto(f"/jobs/{job}/")
    expect(page.locator("#job")).to_have_attribute("data-job-state", "succeeded")
    page.goto("/pools/docs/")
    page.click("[data-region=orders] a:text-is('Pause')")
    page.fill("#reason", "by hand")
    page.click("[data-confirm] button")
    expect(page.locator(".notice.good")).to_contain_text("docs is paused.")
    page.goto("/pools/docs/resume/")
    page.click("[data-confirm] button")
    expect(page.locator(".notice.good")).to_contain_text("docs takes calls.")
    context.close()


def confirm(page: Page, done: Locator) -> None:
    """Confirm an order; again while its question comes back because the broker did not answer in time."""
    end = time.monotonic() + PATIENCE / 1000
    while True:
        page.click("[data-confirm] button")
        expect(done.or_(page.locator("[data-trouble]")).first).to_be_visible()
        if done.count() or time.monotonic() > end:
            return


def test_a_node_is_drained_and_serves_again_as_every_open_page_shows(page: Page, context: BrowserContext) -> None:
    other = context.new_page()
    other.goto("/pools/")
    settle(other)
    page.goto("/nodes/")
    settle(page)
    page.click("[data-order=drain]")
    expect(page.locator("[data-confirm]")).to_contain_text("refuses new calls from now on")
    page.fill("#reason", "a new disk")
    confirm(page, page.locator("[data-drain=drained]"))
    expect(page.locator("[data-drain=drained]")).to_contain_text("a new disk")
    expect(other.locator("[data-banner=drain]")).to_contain_text("user demo")
    page.click("[data-order=resume]")
    confirm(page, page.locator("[data-order=drain]"))
    expect(page.locator("[data-order=drain]")).to_be_visible()
    expect(other.locator("[data-banner=drain]")).to_have_count(0)


def test_a_killed_worker_is_seen_with_its_reason_and_its_event_without_a_reload(page: Page, demo: Demo) -> None:
    page.goto("/pools/digits/")
    settle(page)
    expect(page.locator('.tile[data-state="ready"]')).to_have_count(2)
    tile = page.locator('.tile[data-state="ready"]').first
    ident = tile.get_attribute("data-worker")
    pid = next(one["pid"] for one in status(demo)["workers"] if one["id"] == ident)
    os.kill(pid, signal.SIGKILL)
    gone = page.locator(f'[data-worker="{ident}"][data-state="gone"]')
    gone.wait_for()
    expect(gone).to_contain_text(re.compile("SIGKILL|signal 9"))
    expect(page.locator("[data-event]", has_text=str(ident)).first).to_be_visible()
    expect(page.locator('.tile[data-state="ready"]')).to_have_count(2)


def test_a_command_is_run_in_the_playground_and_its_stream_and_timings_are_shown(page: Page, demo: Demo) -> None:
    page.goto("/playground/?pool=primes&command=primes")
    page.fill("#field-limit", "12")
    expect(page.locator("[data-as=shell]")).to_contain_text("""snakepit call primes primes '{"limit": 12}' --stream""")
    page.click("[data-go]")
    expect(page.locator("[data-status]")).to_have_text("completed · 12 chunks")
    chunks = page.locator("[data-stream] .chunk .text").all_text_contents()
    assert chunks == ["2", "3", "5", "7", "11", "13", "17", "19", "23", "29", "31", "37"]
    for name in ("queued", "ran", "overhead", "whole", "first"):
        assert re.fullmatch(r"[\d.]+ m?s", page.locator(f"[data-{name}]").inner_text()), name
    page.fill("#field-limit", "-1")
    page.click("[data-go]")
    expect(page.locator("[data-code]")).to_have_text("adapter_error")
    page.click("[data-trace] summary")
    expect(page.locator("[data-trace] pre")).to_contain_text("ValueError: limit: -1 is outside")
    page.fill("#field-limit", "")
    page.fill("#field-start", "x" if page.locator("#field-start").get_attribute("type") == "text" else "1000000000000")
    page.fill("#field-limit", "1000000")
    page.click("[data-go]")
    page.locator("[data-stream] .chunk").first.wait_for()
    page.click("[data-stop]")
    expect(page.locator("[data-status]")).to_contain_text("cancelled after")
    # The call has ended in its worker as well: its slot is free again.
    end = time.monotonic() + PATIENCE / 1000
    while any(one["load"] for one in status(demo)["workers"] if one["pool"] == "primes"):
        assert time.monotonic() < end, "the call goes on though its reader left"


def test_a_job_is_submitted_watched_and_cancelled(page: Page, demo: Demo) -> None:
    page.goto("/playground/?pool=primes&command=primes")
    page.fill("#field-start", str(SLOW_JOB["start"]))
    page.fill("#field-limit", str(SLOW_JOB["limit"]))
    page.click("[data-job]")
    page.wait_for_url("**/jobs/*/")
    expect(page.locator("#job")).to_have_attribute("data-job-state", "running")
    page.locator("[data-events] .chunk").first.wait_for()
    page.click("[data-act=cancel]")
    expect(page.locator("[data-confirm]")).to_contain_text("the command is asked to stop")
    page.fill("#reason", "seen enough")
    page.click("[data-confirm] button")
    expect(page.locator("#job")).to_have_attribute("data-job-state", "cancelled")
    expect(page.locator("[data-output-state]")).to_contain_text("complete")
    expect(page.locator("[data-act=retry]")).to_be_visible()
    told = json.loads(demo.run("job", page.url.rstrip("/").rpartition("/")[2], "--json").stdout)
    assert (told["state"], [one["outcome"] for one in told["attempts_made"]]) == ("cancelled", ["cancelled"])
    page.goto("/audit/")
    row = page.locator("[data-action-row=cancel_job]").first
    expect(row).to_contain_text("user demo")
    expect(row).to_contain_text("seen enough")


def test_advice_is_applied_and_the_pool_follows(page: Page, demo: Demo) -> None:
    # Defined as in the admin: pools of the settings are shown the line to write there instead.
    run_in_shell(demo, "Pool.objects.create(name='hasty', adapter='primes', size=1, ttl=1, min_lifetime=60)")
    page.goto("/diagnostics/")
    page.locator('[data-recommendation="ttl:hasty"] [data-apply]').click()
    expect(page.locator("[data-confirm]")).to_contain_text("ttl: 1.0 becomes")
    page.fill("#reason", "it hardly lives")
    page.click("[data-confirm] button")
    expect(page.locator(".notice", has_text="hasty is changed")).to_be_visible()
    settle(page)
    # A successor that starts slower than all before it may bring new advice, but not the old.
    expect(page.locator('[data-recommendation="ttl:hasty"]', has_text="ttl 1 s")).to_have_count(0)
    page.goto("/audit/")
    expect(page.locator("[data-action-row=apply]").first).to_contain_text("it hardly lives")
    assert float(run_in_shell(demo, "print(Pool.objects.get(name='hasty').ttl)")) > 1


def run_in_shell(demo: Demo, code: str) -> str:
    """What the code prints at last."""
    made = [sys.executable, str(ROOT / "manage.py"), "shell", "-c", f"from snakepit.pools.models import Pool; {code}"]
    environment = demo.environment | {"SNAKEPIT_DEMO": "1"}
    done = subprocess.run(
        made, cwd=ROOT, env=environment, check=True, capture_output=True, text=True, timeout=PATIENCE / 1000
    )
    return (done.stdout.splitlines() or [""])[-1]


def test_a_viewer_sees_no_action_and_is_refused_every_order(demo: Demo, browser: Browser, job: str) -> None:
    made = [sys.executable, str(ROOT / "manage.py"), "shell", "-c", LOOKER]
    environment = demo.environment | {"SNAKEPIT_DEMO": "1"}
    subprocess.run(made, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=PATIENCE / 1000)
    context = browser.new_context(base_url=demo.url)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto("/")
    page.fill("#id_username", "lena")
    page.fill("#id_password", "only looks")
    page.click("[type=submit]")
    for path in paths(page, demo, job):
        answer = page.goto(path)
        assert answer is not None
        if answer.status != 403:
            settle(page)
        assert page.locator('form[method="post"]').count() == 0, path
        assert page.locator("[data-act], [data-apply], [data-new-job]").count() == 0, path
    token = next(one["value"] for one in context.cookies() if one["name"] == "csrftoken")
    for path in ("/pools/digits/recycle/", "/pools/digits/scale/", f"/jobs/{job}/clone/", "/playground/run/"):
        headers = {"X-CSRFToken": token, "Referer": demo.url}
        assert page.request.post(path, headers=headers).status == 403, path
    context.close()


def test_the_vendored_axe_is_what_its_makers_published() -> None:
    rows = [line.split() for line in (VENDOR / "VENDORED").read_text().splitlines() if not line.startswith("#")]
    assert {row[0] for row in rows} == {path.name for path in VENDOR.iterdir()} - {"VENDORED"}
    for name, *_, checksum in rows:
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == checksum, name
