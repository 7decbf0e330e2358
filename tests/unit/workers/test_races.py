"""The race checker: it finds what no lock keeps apart, whatever the timing, and is silent where all is well.

Two threads that take turns stand for two slots: what they do one after the other they might do at once.
"""

import asyncio
import collections
import copy
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from snakepit.workers import Adapter, command, locked
from snakepit.workers.adapter import InvalidAdapter
from snakepit.workers.runtime.races import MAX_RACES, MAX_STATE, RaceChecker
from snakepit.workers.runtime.tracked_containers import TRACKED, tracked

MODULE_LOCK = threading.Lock()


class Counting(Adapter):
    """The three safe patterns, and what breaks each."""

    thread_safe = True
    table = {"one": 1}
    history = []

    def __init__(self):
        self.total = 0
        self.counts = {}
        self.items = []
        self.seen = set()
        self.recent = collections.deque(maxlen=3)
        self.groups = collections.defaultdict(list)
        self.letters = collections.Counter(a=1)
        self.own_lock = threading.Lock()
        self.condition = threading.Condition(self.lock)

    def read(self, _):
        return self.table["one"] + self.total

    def in_local(self, value):
        self.local.total = getattr(self.local, "total", 0) + value

    def in_lock(self, value):
        with self.lock:
            self.total += value
            self.counts[value] = self.total
            self.deeper(value)

    @locked
    def deeper(self, value):
        """Does one thing."""
        self.items.append(value)

    def in_condition(self, value):
        with self.condition:
            self.seen.add(value)
            self.condition.notify_all()

    def in_own_lock(self, value):
        with self.own_lock:
            self.total += value

    def in_module_lock(self, value):
        with MODULE_LOCK:
            self.total += value

    def race(self, value):
        self.total += value


class Slots:
    """An adapter that is watched, and two threads that live as long as it does."""

    def __init__(self, adapter):
        self.adapter = adapter
        self.races = []
        self.checker = RaceChecker(self.races.append)
        self.checker.watch(adapter)
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix=f"slot-{number}") for number in (1, 2)]

    def run(self, number, work, *args):
        def call():
            try:
                return work(*args)
            finally:
                self.checker.settle(self.adapter)

        return self._threads[number].submit(call).result(30)

    def both(self, work):
        for number in (0, 1):
            self.run(number, work, number)

    def close(self):
        for thread in self._threads:
            thread.shutdown()


@pytest.fixture
def slots(monkeypatch):
    monkeypatch.setattr(Counting, "table", {"one": 1})
    monkeypatch.setattr(Counting, "history", [])
    monkeypatch.setattr(sys.modules[__name__], "MODULE_LOCK", threading.Lock())
    made = Slots(Counting())
    yield made
    made.close()


@pytest.mark.parametrize(
    "pattern", ["read", "in_local", "in_lock", "in_condition", "in_own_lock", "in_module_lock", "deeper"]
)
def test_the_safe_patterns_are_silent(slots, pattern):
    for _ in range(3):
        slots.both(getattr(slots.adapter, pattern))
    assert slots.races == []


def test_an_unlocked_write_from_two_threads_is_reported_with_both_stacks(slots):
    slots.both(slots.adapter.race)
    (race,) = slots.races
    assert race.attribute == "total"
    assert [race.first_thread, race.second_thread] == ["slot-1_0", "slot-2_0"]
    for stack in (race.first_stack, race.second_stack):
        assert stack.endswith("in Counting.race\n  self.total += value")
        assert __file__ in stack


@pytest.mark.parametrize("run", range(20))
def test_a_planted_race_is_found_every_time(slots, run):
    """Two threads that race for real: whether or not they meet, it is found."""
    together = threading.Barrier(2)

    def work(number):
        together.wait(30)
        slots.adapter.race(number)

    ends = [slots._threads[number].submit(work, number) for number in (0, 1)]
    for end in ends:
        end.result(30)
    assert [race.attribute for race in slots.races] == ["total"]


def test_one_thread_alone_may_write_as_it_likes(slots):
    for _ in range(5):
        slots.run(0, slots.adapter.race, 1)
    assert slots.races == []


def test_a_lock_of_one_side_only_is_no_lock(slots):
    slots.run(0, slots.adapter.in_lock, 1)
    slots.run(1, slots.adapter.race, 1)
    (race,) = slots.races
    assert race.first_stack.startswith("(with a lock that not all writers hold)")
    assert not race.second_stack.startswith("(")


def test_two_different_locks_are_no_lock_either(slots):
    slots.run(0, slots.adapter.in_own_lock, 1)
    slots.run(1, slots.adapter.in_lock, 1)
    assert [race.attribute for race in slots.races] == ["total"]


def test_a_condition_and_the_lock_beneath_it_are_one(slots):
    def in_lock(value):
        with slots.adapter.lock:
            slots.adapter.seen.add(value)

    slots.run(0, slots.adapter.in_condition, 1)
    slots.run(1, in_lock, 1)
    assert slots.races == []


CONTAINERS = {
    "counts": lambda it, value: it.update(a=value),
    "items": lambda it, value: it.append(value),
    "seen": lambda it, value: it.add(value),
    "recent": lambda it, value: it.appendleft(value),
    "groups": lambda it, value: it[value],
    "letters": lambda it, value: it.update("abc"),
    "history": lambda it, value: it.extend([value]),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_unlocked_writes_into_containers_are_reported(slots, name):
    slots.both(lambda value: CONTAINERS[name](getattr(slots.adapter, name), value))
    (race,) = slots.races
    assert race.attribute == ("Counting.history[...]" if name == "history" else f"{name}[...]")


def test_a_container_that_a_call_gave_to_the_adapter_is_watched_from_then_on(slots):
    def renew(_):
        with slots.adapter.lock:
            slots.adapter.items = []

    slots.both(renew)
    assert slots.races == []
    slots.both(lambda value: slots.adapter.items.append(value))
    assert [race.attribute for race in slots.races] == ["items[...]"]


def test_a_container_that_others_hold_too_stays_the_same_object():
    shared = {}

    class Sharing(Adapter):
        thread_safe = True

        def __init__(self):
            self.state = shared

    slots = Slots(Sharing())
    try:
        assert slots.adapter.state is shared
        slots.both(lambda value: slots.adapter.state.update(a=value))
        assert slots.races == []
    finally:
        slots.close()


def test_each_piece_of_state_is_reported_once_and_no_more_than_fifty(slots):
    for _ in range(3):
        slots.both(slots.adapter.race)
    assert len(slots.races) == 1
    for number in range(2 * MAX_RACES):
        slots.both(lambda value, number=number: setattr(slots.adapter, f"made_up_{number}", value))
    assert len(slots.races) == MAX_RACES


def test_an_adapter_that_makes_up_names_cannot_fill_the_memory(slots):
    for number in range(MAX_STATE + 10):
        setattr(slots.adapter, f"made_up_{number}", number)
    assert len(slots.checker._states) == MAX_STATE + 1
    assert slots.adapter.made_up_1009 == 1009


def test_what_is_written_after_the_stop_does_not_count(slots):
    slots.checker.stop()
    slots.both(slots.adapter.race)
    assert slots.races == []


def test_a_watched_adapter_is_what_it_was(slots):
    adapter = slots.adapter
    assert type(adapter).__name__ == "Counting"
    assert isinstance(adapter, Counting)
    slots.run(0, adapter.in_lock, 5)
    assert (adapter.total, adapter.counts, adapter.items) == (5, {5: 5}, [5])
    assert json.dumps(adapter.counts) == '{"5": 5}'
    assert adapter.letters == collections.Counter(a=1)
    assert adapter.recent.maxlen == 3
    assert adapter.groups["x"] == []
    del adapter.total
    assert not hasattr(adapter, "total")


@pytest.mark.parametrize(
    "value",
    [{"a": 1}, [1, 2], {1}, collections.OrderedDict(a=1), collections.defaultdict(list, a=[1]),
     collections.Counter("aab"), collections.deque([1, 2], 5)],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_copy_of_a_tracked_container_is_an_ordinary_one(value):
    writes = []
    container = tracked(value, lambda: writes.append(1))
    assert container == value
    for made in (copy.copy(container), copy.deepcopy(container), container.copy()):
        assert type(made) is type(value)
        assert made == value
    assert type(container) is not type(value)
    assert repr(container) == repr(value)
    container.clear()
    assert writes == [1]
    assert type(value) in TRACKED


# @locked


def test_a_locked_command_is_a_command_in_either_order():
    class Both(Adapter):
        @command(idempotent=True)
        @locked
        def outer(self, value: int) -> int:
            return value

        @locked
        @command
        def inner(self, value: int) -> int:
            return value

    from snakepit.workers.schema.commands import find_commands

    found = find_commands(Both)
    assert found["outer"].idempotent
    assert found["inner"].signature.schema["required"] == ["value"]
    assert Both().outer(value=3) == 3


def test_a_locked_method_holds_the_lock_and_may_be_entered_again():
    adapter = Counting()
    adapter.in_lock(1)  # calls `deeper`, which takes the lock a second time
    entered = threading.Event()
    with ThreadPoolExecutor(1) as other, adapter.lock:
        waiting = other.submit(lambda: (entered.set(), adapter.deeper(2)))
        assert entered.wait(30)
        assert adapter.items == [1]
        adapter.lock.release()
        waiting.result(30)
        adapter.lock.acquire()
    assert adapter.items == [1, 2]
    assert Counting.deeper.__doc__ == "Does one thing."


def test_locked_refuses_what_it_could_not_keep_apart():
    async def waits(self):
        await asyncio.sleep(0)

    async def gives(self):
        yield 1

    def streams(self):
        yield 1

    for method, kind in (
        (waits, "async method 'waits'"),
        (gives, "async generator 'gives'"),
        (streams, "generator 's"),
    ):
        with pytest.raises(InvalidAdapter, match=kind):
            locked(method)
