"""Whether a pool's workers are forked from a template or spawned, and what becomes of the template.

    absent ──a worker is missing──▶ loading ──▶ ready ──▶ workers are forked
      ▲                               │           │
      └── died, or is outdated ───────┼───────────┘
                                      ▼
                                   refused: workers are spawned, and `reason` has the cause

Decides only; the runner does it. After a template has died, the next start that needs one makes another. A refusal
that only new code can change (an unsafe import, no preload) stays; any other lasts a minute.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from snakepit.pools.broker.events import Event, Kind
from snakepit.pools.broker.pool.actions import Action, Emit, StartTemplate, StopTemplate
from snakepit.pools.broker.pool.rates import SlidingWindow
from snakepit.pools.broker.pool.recycle_policy import describe_exit
from snakepit.pools.broker.pool.times import Timers
from snakepit.pools.broker.ports import Exit
from snakepit.pools.broker.spec import PoolSpec, Preload, Profile

WINDOW = 60.0  # seconds
DEATHS_ALLOWED = 3  # within the window; the third sends the pool back to spawned workers
RETRY_SECONDS = 60.0  # after a refusal that may pass
FOR_GOOD = ("no_preload", "unsafe")  # until there is new code or a new definition


class TemplateState(StrEnum):
    OFF = "off"  # the definition has none
    ABSENT = "absent"
    LOADING = "loading"
    READY = "ready"
    REFUSED = "refused"


class PoolTemplate:
    """The templates of one pool, of which at most one is in use."""

    def __init__(self, pool: str, boot: str, timers: Timers) -> None:
        self.id = ""  # of the newest
        self.reason = ""  # why workers are spawned, in one word
        self.why = ""  # the same as a sentence
        self.load_seconds = 0.0
        self.memory_mb = -1.0
        self.deaths = 0
        self._state = TemplateState.ABSENT
        self._pool = pool
        self._boot = boot
        self._timers = timers
        self._count = 0
        self._born = 0.0
        self._failures = SlidingWindow(WINDOW)
        self._retry_at = float("inf")

    @property
    def state(self) -> TemplateState:
        return self._state

    @property
    def is_ready(self) -> bool:
        return self._state is TemplateState.READY

    @property
    def is_loading(self) -> bool:
        return self._state is TemplateState.LOADING

    def is_current(self, name: str) -> bool:
        return name == self.id and self._state in (TemplateState.LOADING, TemplateState.READY)

    def is_unexpectedly_refused(self, spec: PoolSpec) -> bool:
        """Whether the pool's owner would expect a template, and there is none."""
        expected = self.reason == "no_preload" and spec.preload == Preload.AUTO
        return self._state is TemplateState.REFUSED and not expected

    # What the worker set asks for

    def ensure(self, spec: PoolSpec, now: float) -> Iterator[Action]:
        """A worker is missing: start a template, if this pool is to have one and has none."""
        if plain := _why_off(spec):
            self._state = TemplateState.OFF
            self.reason, self.why = plain
            return
        if self._state is TemplateState.REFUSED and now < self._retry_at:
            return
        if self._state in (TemplateState.LOADING, TemplateState.READY):
            return
        self._count += 1
        self.id = f"{self._pool}-{self._boot}-t{self._count}"
        self._born = now
        self._state, self.reason, self.why = TemplateState.LOADING, "", ""
        self._timers.set(("template", self.id), now + spec.startup_timeout)
        yield StartTemplate(self.id)

    def invalidate(self, reason: str) -> Iterator[Action]:
        """The template is outdated: there is new code, a new definition, or no need any more."""
        if self.is_current(self.id):
            self._forget()
            yield StopTemplate(self.id)
            yield self._emit(Kind.TEMPLATE_ENDED, reason, f"ended, {reason}; its workers do not need it")
        self._state, self.reason, self.why = TemplateState.ABSENT, "", ""
        self._failures.clear()

    def _forget(self) -> None:
        self._timers.clear(("template", self.id))
        self.memory_mb = -1.0

    # What the runner reports. A report about any but the current template changes nothing.

    def loaded(self, name: str, seconds: float, now: float) -> Iterator[Action]:
        if not self.is_current(name) or self.is_ready:
            return
        self._timers.clear(("template", name))
        self._state = TemplateState.READY
        self.load_seconds = seconds
        message = f"template ready {now - self._born:.2f} s after its start; workers are forked from it"
        yield self._emit(Kind.TEMPLATE_STARTED, "", message, data={"load_seconds": round(seconds, 3)})

    def refused(self, name: str, reason: str, why: str, spec: PoolSpec, now: float) -> Iterator[Action]:
        if not self.is_current(name):
            return
        self._forget()
        self._state, self.reason, self.why = TemplateState.REFUSED, reason, why
        self._retry_at = float("inf") if reason in FOR_GOOD else now + RETRY_SECONDS
        level = "warning" if self.is_unexpectedly_refused(spec) else "info"
        yield self._emit(Kind.TEMPLATE_REFUSED, reason, f"workers are spawned one by one: {why}", level=level)

    def timed_out(self, name: str, spec: PoolSpec, now: float) -> Iterator[Action]:
        """It did not load in time."""
        if self.is_current(name):
            yield StopTemplate(name)
            why = f"the template did not load within {spec.startup_timeout:g} s"
            yield from self.refused(name, "load_timeout", why, spec, now)

    def ended(self, name: str, exit: Exit, evidence: str, spec: PoolSpec, now: float) -> Iterator[Action]:
        """Its process is reaped."""
        if self.is_current(name):
            yield from self._failed(describe_exit(exit), evidence, spec, now)

    def fork_failed(self, name: str, why: str, spec: PoolSpec, now: float) -> Iterator[Action]:
        """It did not fork a worker: it is ended, and another one may do better."""
        if self.is_current(name):
            yield StopTemplate(name)
            yield from self._failed(why, "", spec, now)

    def _failed(self, why: str, evidence: str, spec: PoolSpec, now: float) -> Iterator[Action]:
        self._forget()
        self.deaths += 1
        message = f"the template died, {why}; its workers go on, the next start makes a new one"
        data = {"output": evidence}
        yield self._emit(Kind.TEMPLATE_DIED, self._state.value, message, level="warning", data=data)
        if (count := self._failures.add(now)) >= DEATHS_ALLOWED:
            why = f"{count} templates died within {WINDOW:.0f} s, the last one: {why}"
            yield from self.refused(self.id, "template_deaths", why, spec, now)
        else:
            self._state = TemplateState.ABSENT

    def sampled(self, name: str, memory_mb: float) -> None:
        if self.is_current(name):
            self.memory_mb = memory_mb

    def _emit(
        self, kind: Kind, reason: str, message: str, *, level: str = "info", data: dict[str, Any] | None = None
    ) -> Emit:
        return Emit(Event(kind, self._pool, self.id, reason, message, level, data or {}))


def _why_off(spec: PoolSpec) -> tuple[str, str] | None:
    """Return why this definition has no template, or None."""
    if spec.preload == Preload.OFF:
        return "off", "preload is off"
    if spec.profile == Profile.THREAD:
        return "thread_profile", "a worker of the thread profile holds its memory once for all its slots"
    return None
