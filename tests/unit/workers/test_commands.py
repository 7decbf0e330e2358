"""Adapters: loading them, finding their commands, making them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from snakepit.workers import Adapter, command
from snakepit.workers.adapter import InvalidAdapter
from snakepit.workers.call import AssignedCall
from snakepit.workers.report import Outbox
from snakepit.workers.runtime.async_commands import OwnLoop
from snakepit.workers.runtime.execution import Execution
from snakepit.workers.schema.commands import (
    ArgumentsRefused,
    ClassMissing,
    ModuleMissing,
    NotAnAdapter,
    NotThreadSafe,
    bind,
    find_commands,
    load_class,
    make,
    preload,
    require_thread_safe,
)


class Shop(Adapter):
    """An adapter with every kind of command."""

    loaded: dict[str, object] = {}

    @classmethod
    def preload(cls, *, model: str = "none") -> None:
        cls.loaded = {"model": model}

    def __init__(self, model: str = "", rate: float = 1.0) -> None:
        self.model, self.rate = model, rate

    @command
    def sell(self, item: str) -> str:
        """Sell one.

        More about it.
        """
        return f"{item} {self.rate}"

    @command(name="browse", idempotent=True, timeout=3)
    def _look_around(self) -> Iterator[int]:
        yield 1

    @command
    async def order(self) -> int:
        return 1

    @command
    @staticmethod
    def rules(a: int) -> int:
        return a

    @command
    @classmethod
    def name(cls) -> str:
        return cls.__name__

    def secret(self) -> None: ...

    @property
    def trap(self) -> None:
        raise AssertionError("looking for commands must not run anything")


def test_only_decorated_methods_are_commands():
    assert sorted(find_commands(Shop)) == ["browse", "name", "order", "rules", "sell"]


def test_a_commands_facts_come_from_its_decorator_and_docstring():
    commands = find_commands(Shop)
    assert (commands["sell"].summary, commands["sell"].description) == ("Sell one.", "Sell one.\n\nMore about it.")
    browse = commands["browse"]
    assert (browse.streams, browse.idempotent, browse.timeout) == (True, True, 3.0)
    assert list(commands["rules"].signature.schema["properties"]) == ["a"]
    assert list(commands["name"].signature.schema["properties"]) == []


def test_bound_commands_run_on_the_instance():
    bound = bind(make(Shop, {"rate": 2}), find_commands(Shop))
    assert bound["sell"].method(item="tea") == "tea 2.0"
    assert bound["rules"].method(a=1) == 1
    assert bound["name"].method() == "Shop"


def test_a_wrapped_method_keeps_its_signature():
    def logged(method):
        @functools.wraps(method)
        def wrapper(*args, **kwargs):
            return method(*args, **kwargs)

        return wrapper

    class Wrapped(Adapter):
        @command
        @logged
        def add(self, a: int) -> int:
            return a

    assert list(find_commands(Wrapped)["add"].signature.schema["properties"]) == ["a"]


def test_preload_gets_the_args_that_it_names():
    preload(Shop, {"model": "big", "rate": 1})
    assert Shop.loaded == {"model": "big"}
    preload(Shop, {})
    assert Shop.loaded == {"model": "none"}


def test_args_that_do_not_fit_are_refused_by_name():
    with pytest.raises(ArgumentsRefused, match=r"modl is unknown \(did you mean 'model'\?\)"):
        make(Shop, {"modl": "x"})
    with pytest.raises(ArgumentsRefused, match="rate must be a number"):
        make(Shop, {"rate": "fast"})


def test_an_adapter_without_init_takes_no_args():
    class Bare(Adapter):
        @command
        def run(self) -> None: ...

    assert isinstance(make(Bare, {}), Bare)
    with pytest.raises(ArgumentsRefused, match="a is unknown"):
        make(Bare, {"a": 1})


def test_local_and_lock_are_there_without_calling_the_base():
    shop = Shop()
    shop.local.value = 1
    seen = []
    thread = threading.Thread(target=lambda: seen.append(hasattr(shop.local, "value")))
    thread.start()
    thread.join()
    assert seen == [False]
    with shop.lock, shop.lock:
        pass


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("Digits", ModuleMissing, "is not the dotted path of a class"),
        ("no_such_package.Digits", ModuleMissing, "no module 'no_such_package'"),
        ("snakepit.workers.no_such.Digits", ModuleMissing, "no module 'snakepit.workers.no_such'"),
        ("snakepit.workers.adapter.Adaptor", ClassMissing, "did you mean 'Adapter'?"),
        ("pathlib.Path", NotAnAdapter, "write `class Path(Adapter)`"),
        ("os.getpid", NotAnAdapter, "not a subclass"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_with_the_fix(path, error, words):
    with pytest.raises(error) as caught:
        load_class(path)
    assert words in str(caught.value)


def test_a_class_is_loaded_by_its_path():
    assert load_class("snakepit.workers.adapter.Adapter") is Adapter


def test_the_thread_profile_wants_a_declaration():
    with pytest.raises(NotThreadSafe, match="thread_safe = True"):
        require_thread_safe(Shop)

    class Safe(Shop):
        thread_safe = True

    require_thread_safe(Safe)


def test_an_adapter_without_commands_is_refused():
    with pytest.raises(InvalidAdapter, match="has no commands"):
        find_commands(Adapter)


def test_two_commands_of_one_name_are_refused():
    class Twice(Adapter):
        @command(name="run")
        def one(self) -> None: ...

        @command(name="run")
        def two(self) -> None: ...

    with pytest.raises(InvalidAdapter, match="two commands named 'run'"):
        find_commands(Twice)


def test_a_bad_signature_names_its_command():
    class Bad(Adapter):
        @command
        def run(self, *things: int) -> None: ...

    with pytest.raises(InvalidAdapter, match="command 'run' of Bad: things: arguments come by name"):
        find_commands(Bad)


def test_a_bad_signature_fails_its_command_and_no_other():
    class Mixed(Adapter):
        @command
        def bad(self, thing: threading.Thread) -> None: ...

        @command
        def good(self) -> int:
            return 1

    described = find_commands(Mixed)
    assert "command 'bad' of Mixed: thing: threading.Thread cannot be made" in described["bad"].problem
    assert described["bad"].facts()["summary"] == f"Cannot be called: {described['bad'].problem}"
    bound = bind(Mixed(), described)
    execution = Execution(bound, Outbox(lambda final: None), OwnLoop())
    failed: Any = execution.perform(AssignedCall(1, "bad", b'{"thing": 1}'))
    assert (failed.code, failed.message) == ("adapter_error", f"InvalidAdapter: {described['bad'].problem}")
    answered: Any = execution.perform(AssignedCall(2, "good"))
    assert answered.value.data == b"1"


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), "5"])
def test_an_impossible_timeout_is_refused(timeout):
    with pytest.raises(InvalidAdapter, match="seconds above 0"):
        command(timeout=timeout)


def test_a_command_has_a_public_name():
    with pytest.raises(InvalidAdapter, match="without a leading underscore"):

        @command
        def _hidden(self) -> None: ...

    with pytest.raises(InvalidAdapter, match="an identifier"):
        command(name="two words")(lambda self: None)


def test_the_decorator_wants_a_method():
    with pytest.raises(InvalidAdapter, match="before a method, not before int"):
        command(3)  # type: ignore[call-overload]


class Hooked(Shop):
    async def on_failure(self, job: dict[str, Any]) -> None: ...


def test_a_hook_for_failed_jobs_is_found_beside_the_commands() -> None:
    assert set(find_commands(Hooked)) - set(find_commands(Shop)) == {"on_failure"}
    assert "on_failure" not in find_commands(Shop)


def test_a_hook_with_another_signature_or_marked_as_command_is_refused() -> None:
    class Other(Shop):
        def on_failure(self, ident: str) -> None: ...  # type: ignore[override]

    class Marked(Shop):
        @command
        def on_failure(self, job: dict[str, Any]) -> None: ...

    with pytest.raises(InvalidAdapter, match="write the hook as"):
        find_commands(Other)
    with pytest.raises(InvalidAdapter, match="is a hook: remove @command"):
        find_commands(Marked)
