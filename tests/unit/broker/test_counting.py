"""Results that wait to be counted: none is lost or counted twice, and they do not wait without end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from snakepit.pools.broker.broker import Broker
from snakepit.pools.broker.caller import CallerIdentity, Limits
from snakepit.pools.broker.ports import Ports
from snakepit.pools.broker.runner import runner
from tests.fakes import play
from tests.unit.broker.test_runner import Stage, pool


class Numbers:
    """A Meter that can be read."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str, str]] = Counter()
        self.times: list[tuple[float, float]] = []
        self.delivered_to: Counter[str] = Counter()
        self.buffers: Counter[tuple[str, str]] = Counter()
        self.times_full: Counter[str] = Counter()

    def executed(self, pool: str, command: str, code: str, queued: float, ran: float) -> None:
        self.calls[pool, command, code] += 1

    def succeeded(self, pool: str, command: str, queued: Sequence[float], ran: Sequence[float]) -> None:
        self.calls[pool, command, "ok"] += len(ran)
        self.times += zip(queued, ran, strict=True)

    def delivered(self, pool: str, results: int) -> None:
        self.delivered_to[pool] += results

    def buffered(self, pool: str, of: str, size: int) -> None:
        self.buffers[pool, of] += size

    def full(self, pool: str, times: int) -> None:
        self.times_full[pool] += times


class CountingStage(Stage):
    """A stage whose numbers can be read."""

    def __init__(self) -> None:
        super().__init__((pool(),), 3600.0)
        self.numbers = Numbers()
        ports = self.broker.ports
        counting = Ports(ports.launcher, ports.linker, ports.clock, ports.definitions, ports.recorder, self.numbers)
        self.broker = Broker(self.broker.facts, counting)

    async def open(self) -> None:
        await self.broker.start()
        await self.ready()


def test_results_wait_until_they_are_counted_and_errors_do_not() -> None:
    stage = CountingStage()

    async def scenario() -> None:
        await stage.open()
        await stage.call("echo")
        await stage.call("raises")
        assert stage.numbers.calls == {("p", "raises", "adapter_error"): 1}
        stage.broker.count()
        stage.broker.count()
        assert stage.numbers.calls == {("p", "raises", "adapter_error"): 1, ("p", "echo", "ok"): 1}
        assert stage.numbers.times == [(0.0, 0.001)]
        assert stage.numbers.times_full == {"p": 2}, "the only slot was taken twice"
        await stage.broker.stop(grace=0.0)

    play(scenario(), stage.clock)


def test_many_results_are_counted_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MAX_UNCOUNTED", 3)
    stage = CountingStage()

    async def scenario() -> None:
        await stage.open()
        for counted in (0, 0, 3, 3):
            await stage.call("echo")
            assert stage.numbers.calls["p", "echo", "ok"] == counted
        await stage.broker.stop(grace=0.0)
        assert stage.numbers.calls["p", "echo", "ok"] == 4

    play(scenario(), stage.clock)


def test_a_removed_pool_counts_its_last_results() -> None:
    stage = CountingStage()

    async def scenario() -> None:
        await stage.open()
        held = stage.submit("hold")
        await stage.turn()
        stage.definitions.change()
        await stage.until(lambda: not stage.broker.runners)
        stage.processes[0].finish(1)
        await stage.until(lambda: held.over and not stage.launcher.living)
        await stage.turn()
        assert stage.numbers.calls == {("p", "hold", "ok"): 1}
        await stage.broker.stop(grace=0.0)

    play(scenario(), stage.clock)


def test_a_call_that_is_refused_before_its_pool_counts_there_too() -> None:
    stage = CountingStage()

    async def scenario() -> None:
        await stage.broker.start()
        await stage.ready()
        hurried = CallerIdentity("snk_1", "ada", Limits(calls_in_flight=1))
        held = [stage.submit("hold", caller=hurried) for _ in range(2)]
        stage.broker.drain("ada", "")
        held += [stage.submit(command) for command in ("hold", "no_such_command")]
        assert [answer.code for answer in held[1:]] == ["limit_reached", "node_draining", "node_draining"]
        assert stage.row("p").refused == 3
        await stage.until(lambda: stage.row("p").usage.not_admitted == 3)
        refused = {key: count for key, count in stage.numbers.calls.items() if key[2] != "ok"}
        assert refused == {
            ("p", "hold", "limit_reached"): 1, ("p", "hold", "node_draining"): 1, ("p", "unknown", "node_draining"): 1,
        }  # fmt: skip
        await stage.broker.stop(1.0)

    play(scenario(), stage.clock)


def test_every_refused_call_is_refused_in_the_window_too_and_none_of_them_is_served() -> None:
    stage = Stage((pool(size=1, queue_limit=1, max_payload=1024), pool("q", paused=True)), 3600.0)

    async def scenario() -> None:
        await stage.broker.start()
        await stage.ready()
        stage.submit("hold")
        await stage.turn()
        stage.submit("hold", caller=CallerIdentity("snk_1", "ada", Limits(calls_waiting=1)))
        stage.submit("hold", {"text": "x" * 2000})
        stage.submit("no_such_command")
        stage.submit("hold", caller=CallerIdentity("snk_1", "ada", Limits(calls_waiting=1)))
        stage.submit("hold")
        stage.submit("hold", name="q")
        await stage.until(lambda: stage.row("q").usage.not_admitted and stage.row("p").usage.not_admitted)
        codes = Counter(answer.code for answer in stage.answers if answer.over)
        first, paused = stage.row("p"), stage.row("q")
        assert codes == {
            "payload_too_large": 1, "command_unknown": 1, "limit_reached": 1, "queue_full": 1, "pool_paused": 1,
        }  # fmt: skip
        assert (first.refused, paused.refused) == (4, 1)
        assert (first.usage.refused, first.usage.not_admitted, first.usage.answered) == (1, 3, 1)
        key = stage.broker.snapshot().quotas[0]
        assert (key.name, key.accepted, key.refused, key.over_waiting) == ("snk_1", 2, 1, 1)
        assert (paused.usage.refused, paused.usage.not_admitted, paused.usage.answered) == (0, 1, 0)
        await stage.broker.stop(1.0)

    play(scenario(), stage.clock)
