"""Loads the adapters of a test: the class at the worker's start, the instance where a command is not faked.

A worker makes its instance at its start, like a worker process, and a failure is the failure of the pool. If commands
of the pool are faked, the instance is made when a command that is not faked runs first: a test that fakes a model must
not load it. Where the class cannot be imported at all, the fakes are the commands, and take any arguments.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from snakepit.testing.fakes import Fakes
from snakepit.workers.adapter import Adapter
from snakepit.workers.process.boot import Boot
from snakepit.workers.schema import commands
from snakepit.workers.schema.commands import CommandSpec, PreloadedAdapter
from snakepit.workers.schema.signature import signature_of


class LazyAdapter:
    """The commands of an adapter by their attributes; makes the instance when it is needed."""

    def __init__(self, found: Mapping[str, CommandSpec], make: Callable[[], Adapter], fakes: Fakes, pool: str) -> None:
        self.commands = dict(found)
        self._make = make
        self._made: Adapter | None = None
        self._making = threading.Lock()
        for spec in self.commands.values():
            setattr(self, spec.attribute, partial(self._run, pool, spec, fakes))

    def instance(self) -> Adapter:
        with self._making:
            if self._made is None:
                self._made = self._make()
            return self._made

    def teardown(self) -> Any:
        return None if self._made is None else self._made.teardown()

    def _run(self, pool: str, spec: CommandSpec, fakes: Fakes, /, **arguments: Any) -> Any:
        fake = fakes.find(pool, spec.name)
        if fake is not None:
            if spec.signature.context and not fake.takes(spec.signature.context):
                arguments.pop(spec.signature.context, None)
            if spec.batch:
                return fake.answer_each(arguments)
            return fake.answer(arguments, streams=spec.streams)
        return getattr(self.instance(), spec.attribute)(**arguments)


class Loading:
    """The adapter classes of one broker. `preload` runs once for a class and its arguments, as in a template."""

    def __init__(self, fakes: Fakes, classes: Mapping[str, type[Adapter]]) -> None:
        self._fakes = fakes
        self._classes = classes
        self._lock = threading.Lock()
        self._preloaded: list[tuple[type[Adapter], Mapping[str, Any]]] = []

    def adapter(self, boot: Boot, complete: Callable[[Any], None]) -> LazyAdapter:
        faked = self._fakes.commands_of(boot.pool)
        try:
            kind = self.kind(boot.pool, boot.adapter)
        except (ImportError, commands.ModuleMissing):
            if not faked:
                raise
            return LazyAdapter({name: _unchecked(name) for name in faked}, _no_instance, self._fakes, boot.pool)
        if boot.profile == "thread":
            commands.require_thread_safe(kind)
        loaded = PreloadedAdapter(kind, commands.find_commands(kind))
        adapter = LazyAdapter(loaded.commands, lambda: self._make(kind, boot.args, complete), self._fakes, boot.pool)
        if not faked:
            adapter.instance()
        return adapter

    def kind(self, pool: str, path: str) -> type[Adapter]:
        return self._classes.get(pool) or commands.load_class(path)

    def _make(self, kind: type[Adapter], args: Mapping[str, Any], complete: Callable[[Any], None]) -> Adapter:
        with self._lock:
            if (kind, args) not in self._preloaded:
                commands.preload(kind, args)
                self._preloaded.append((kind, args))
        adapter = commands.make(kind, args)
        complete(adapter.setup())
        return adapter


def _unchecked(name: str) -> CommandSpec:
    def anything(**arguments: Any) -> Any: ...

    return CommandSpec(name, name, "", "", False, False, 0.0, signature_of(anything))


def _no_instance() -> Adapter:
    raise AssertionError("a command without a fake ran in a pool whose adapter cannot be imported")
