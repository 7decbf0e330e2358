"""When a vigil looks and when it lets its thread sleep, on a clock of its own."""

from __future__ import annotations

from snakepit.workers.transport.spin_wait import CROWDED, MOST_SKIPPED, RECENT, SpinWait

STEP = 0.0001  # seconds that a look takes on this clock
SPAN = 10.5 * STEP


class World:
    """A clock that moves on with each look, and what comes when."""

    def __init__(self) -> None:
        self.time = 0.0
        self.looks = 0
        self.comes_after: int | None = None  # looks of a vigil
        self.others_run = 0.0  # seconds, whenever the core is given away
        self.vigil = SpinWait(self.look, lambda: self.time, self.give_way)

    def look(self) -> str:
        self.looks += 1
        self.time += STEP
        return "answer" if self.comes_after is not None and self.looks > self.comes_after else ""

    def give_way(self) -> None:
        self.time += self.others_run

    def keep(self) -> tuple[str | None, int]:
        """What a vigil brought, and in how many looks."""
        self.looks = 0
        came = self.vigil.keep(SPAN)
        self.vigil.end()
        return came, self.looks


def test_what_comes_within_the_span_is_found_each_time() -> None:
    world = World()
    world.comes_after = 7
    assert [world.keep() for _ in range(3)] == [("answer", 8)] * 3


def test_a_vigil_in_vain_ends_with_its_span_and_the_next_ones_are_skipped_twice_as_often_each_time() -> None:
    world = World()
    skipped = []
    for _ in range(8):
        assert world.keep() == (None, 11)
        skipped.append(0)
        while world.vigil._skipped:
            assert world.keep() == (None, 0)
            skipped[-1] += 1
    assert skipped == [2, 4, 8, 16, 32, MOST_SKIPPED, MOST_SKIPPED, MOST_SKIPPED]


def test_an_answer_makes_good_for_what_was_in_vain() -> None:
    world = World()
    for _ in range(1 + 2 + 1 + 4):
        world.keep()
    world.comes_after = 0
    assert world.keep() == ("answer", 1)
    world.comes_after = None
    assert [world.keep()[1] for _ in range(4)] == [11, 0, 0, 11]


def test_others_who_want_the_core_end_a_vigil_at_once() -> None:
    world = World()
    world.comes_after, world.others_run = 3, CROWDED
    assert world.keep() == (None, 1)
    assert world.keep() == (None, 0)


def test_who_comes_back_later_sleeps_and_who_then_comes_back_at_once_is_awake_again() -> None:
    world = World()
    world.comes_after = 2
    assert world.keep() == ("answer", 3)
    world.time += 1.01 * RECENT
    assert world.keep() == (None, 0)
    world.time += 0.99 * RECENT
    assert world.keep() == ("answer", 3)


def test_waits_that_come_late_are_none_of_those_that_are_skipped() -> None:
    world = World()
    assert world.keep() == (None, 11)
    for _ in range(5):
        world.time += 1.01 * RECENT
        assert world.keep() == (None, 0)
    assert [world.keep()[1] for _ in range(3)] == [0, 0, 11]
