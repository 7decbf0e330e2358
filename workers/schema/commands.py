"""Loads an adapter's class from its dotted path and finds its commands. Errors say how to fix the adapter."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from snakepit.workers.adapter import MARK, ON_FAILURE, Adapter, CommandOptions, InvalidAdapter
from snakepit.workers.schema.annotation import nearest
from snakepit.workers.schema.batched import batch_signature_of
from snakepit.workers.schema.result import result_schema
from snakepit.workers.schema.signature import InvalidArguments, Signature, signature_of


class ModuleMissing(InvalidAdapter):
    """The adapter's module cannot be found."""


class ClassMissing(InvalidAdapter):
    """The module has no class of this name."""


class NotAnAdapter(InvalidAdapter):
    """The object is not a subclass of snakepit.Adapter."""


class NotThreadSafe(InvalidAdapter):
    """The adapter is not marked thread-safe, which the thread profile requires."""


class ArgumentsRefused(InvalidAdapter):
    """The pool's args do not fit the adapter's `__init__`."""


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """A method that callers may run."""

    name: str
    attribute: str
    summary: str
    description: str
    streams: bool
    idempotent: bool
    timeout: float
    signature: Signature
    problem: str = ""  # why it cannot be called
    batch: int = 0  # calls that may run together; 0: each runs alone
    wait: float = 0.0
    result: Mapping[str, Any] = field(default_factory=dict)  # JSON Schema of one result or chunk; empty: any value

    def facts(self) -> dict[str, Any]:
        """What the broker, and through it every client, receives about the command."""
        return {
            "name": self.name,
            "summary": self.summary,
            "description": self.description,
            "streams": self.streams,
            "idempotent": self.idempotent,
            "timeout": self.timeout,
            "schema": self.signature.schema,
            "batch": self.batch,
            "batch_wait": self.wait,
            "result_schema": self.result,
        }


@dataclass(frozen=True, slots=True)
class BoundCommand:
    """A command of the adapter's instance, ready to be called."""

    method: Callable[..., Any]
    signature: Signature
    idempotent: bool = False
    problem: str = ""  # why it cannot be called
    batch: int = 0  # calls that may run together; 0: the method runs one call


@dataclass(frozen=True, slots=True)
class PreloadedAdapter:
    """An adapter's class after its `preload`, and its commands."""

    kind: type[Adapter]
    commands: Mapping[str, CommandSpec]


def load_class(path: str) -> type[Adapter]:
    """Import the adapter's class from "package.module.Class". Exceptions of the module itself pass unchanged."""
    module_name, _, class_name = path.rpartition(".")
    if not module_name or not class_name.isidentifier():
        raise ModuleMissing(f"{path!r} is not the dotted path of a class; write package.module.Class")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ModuleMissing(
                f"no module {error.name!r} for the adapter {path!r}: correct SNAKEPIT['ADAPTERS'], "
                "or install the package in the pool's interpreter"
            ) from None
        raise  # an import inside the adapter's module failed
    found = getattr(module, class_name, None)
    if found is None:
        hint = nearest(class_name, vars(module))
        raise ClassMissing(f"module {module_name!r} has no {class_name!r}{hint}: correct SNAKEPIT['ADAPTERS']")
    if not (isinstance(found, type) and issubclass(found, Adapter)):
        raise NotAnAdapter(f"{path!r} is not a subclass of snakepit.Adapter: write `class {class_name}(Adapter)`")
    return found


def require_thread_safe(kind: type[Adapter]) -> None:
    if kind.thread_safe is not True:
        raise NotThreadSafe(
            f"{kind.__name__} is not marked thread-safe: set `thread_safe = True` on the class once its "
            "commands may run at the same time, or give the pool the process profile"
        )


def find_commands(kind: type[Adapter]) -> dict[str, CommandSpec]:
    """Every method marked with @command, by its public name.

    A command whose signature is not possible is in it with the problem: its calls fail, and the others work.
    """
    found: dict[str, CommandSpec] = {}
    for attribute in dir(kind):
        options = getattr(_inner(inspect.getattr_static(kind, attribute)), MARK, None)
        if not isinstance(options, CommandOptions):
            continue
        if options.name in found:
            raise InvalidAdapter(f"{kind.__name__} has two commands named {options.name!r}: rename one")
        found[options.name] = _describe(kind, attribute, options)
    hook = _failure_hook(kind, found)
    if not found:
        raise InvalidAdapter(f"{kind.__name__} has no commands: put @command before the methods that callers may run")
    problems = [command.problem for command in found.values() if command.problem]
    if len(problems) == len(found):
        raise InvalidAdapter(problems[0])
    return found | hook


def _failure_hook(kind: type[Adapter], commands: Mapping[str, CommandSpec]) -> dict[str, CommandSpec]:
    """The hook `on_failure`, if the adapter has its own: a command that only the jobs of the pool run."""
    if ON_FAILURE in commands:
        raise InvalidAdapter(f"{kind.__name__}: {ON_FAILURE} is a hook: remove @command, or rename the command")
    if inspect.getattr_static(kind, ON_FAILURE) is inspect.getattr_static(Adapter, ON_FAILURE):
        return {}
    spec = _describe(kind, ON_FAILURE, CommandOptions(ON_FAILURE))
    if spec.problem or set(spec.signature.schema.get("properties", {})) != {"job"} or spec.streams:
        raise InvalidAdapter(f"{kind.__name__}: write the hook as `def {ON_FAILURE}(self, job: dict[str, Any])`")
    return {ON_FAILURE: spec}


def _inner(attribute: Any) -> Any:
    return attribute.__func__ if isinstance(attribute, staticmethod | classmethod) else attribute


def _describe(kind: type[Adapter], attribute: str, options: CommandOptions) -> CommandSpec:
    method = getattr(kind, attribute)
    is_plain = inspect.isfunction(method) and not isinstance(inspect.getattr_static(kind, attribute), staticmethod)
    text, problem = inspect.cleandoc(method.__doc__) if method.__doc__ else "", ""
    try:
        skip = 1 if is_plain else 0
        signature = batch_signature_of(method, skip) if options.batch else signature_of(method, skip=skip)
    except InvalidAdapter as error:
        problem = f"command {options.name!r} of {kind.__name__}: {error}"
        signature = Signature({}, frozenset(), {"type": "object", "description": problem})
        text = f"Cannot be called: {problem}\n\n{text}".rstrip()
    inner = inspect.unwrap(method)
    streams = inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner)
    return CommandSpec(
        name=options.name,
        attribute=attribute,
        summary=text.partition("\n")[0].strip(),
        description=text,
        streams=streams,
        idempotent=options.idempotent,
        timeout=options.timeout,
        signature=signature,
        problem=problem,
        batch=options.batch,
        wait=options.wait,
        result={} if problem else result_schema(method, streams=streams, batched=options.batch > 0),
    )


def has_preload(kind: type[Adapter]) -> bool:
    """Whether the adapter asks for a template: it has its own `preload`, or sets `preload = True`."""
    found: Any = inspect.getattr_static(kind, "preload")
    if isinstance(found, bool):
        return found
    if not isinstance(found, classmethod | staticmethod):
        raise InvalidAdapter(
            f"preload of {kind.__name__} is a {type(found).__name__}: write it as a classmethod, since it runs "
            "before there is an instance, or set `preload = True`"
        )
    return found is not inspect.getattr_static(Adapter, "preload")


def preload(kind: type[Adapter], args: Mapping[str, Any]) -> None:
    """Run the class's `preload`, if it has one, with the pool's args that it has parameters for."""
    if not has_preload(kind) or isinstance(kind.preload, bool):
        return
    parameters = inspect.signature(kind.preload).parameters.values()
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    names = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    kind.preload(**{name: value for name, value in args.items() if takes_all or name in names})


def make(kind: type[Adapter], args: Mapping[str, Any]) -> Adapter:
    """Make the instance, after checking the pool's args against its `__init__`."""
    try:
        checked = signature_of(kind.__init__, skip=1, lenient=True).check(args)
    except InvalidArguments as error:
        raise ArgumentsRefused(f"the pool's args do not fit {kind.__name__}: {error}") from None
    except InvalidAdapter as error:
        raise InvalidAdapter(f"__init__ of {kind.__name__}: {error}") from None
    return kind(**checked)


def bind(adapter: Adapter, commands: Mapping[str, CommandSpec]) -> dict[str, BoundCommand]:
    return {
        name: BoundCommand(getattr(adapter, item.attribute), item.signature, item.idempotent, item.problem, item.batch)
        for name, item in commands.items()
    }


def after_first_calls(bound: dict[str, BoundCommand], check: Callable[[], None]) -> None:
    """Run `look` after the first call of each command. Later calls have no overhead."""

    def watched(name: str, plain: BoundCommand) -> BoundCommand:
        def first(**arguments: Any) -> Any:
            try:
                return plain.method(**arguments)
            finally:
                bound[name] = plain
                check()

        return replace(plain, method=first)

    for name, plain in list(bound.items()):
        bound[name] = watched(name, plain)


def after_each_call(bound: dict[str, BoundCommand], check: Callable[[], None]) -> None:
    """Run `look` after every call, on the call's thread."""

    def watched(plain: BoundCommand) -> BoundCommand:
        def run(**arguments: Any) -> Any:
            try:
                return plain.method(**arguments)
            finally:
                check()

        return replace(plain, method=run)

    for name, plain in list(bound.items()):
        bound[name] = watched(plain)
