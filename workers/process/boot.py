"""The boot document: one JSON object that configures a worker or template, read from an inherited descriptor."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

from snakepit.workers.kept_files import MOST_BYTES

PROTOCOL = 1
PROFILES = ("process", "thread")


class BootInvalid(Exception):
    """The boot document is not valid for this worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxBoot:
    """What the process gives up before it imports the adapter."""

    network: bool = False
    paths: tuple[str, ...] | None = None  # that stay open besides what Python needs; None: files have no limit
    scratch: str = ""  # the directory of its temporary files, which stays open

    @property
    def is_active(self) -> bool:
        return self.network or self.paths is not None


def _sandbox(given: object) -> SandboxBoot:
    if isinstance(given, SandboxBoot):
        return given
    if not isinstance(given, Mapping) or given.keys() - {"network", "paths", "scratch"}:
        raise BootInvalid("sandbox: must be an object with network, paths and scratch")
    network, paths, scratch = given.get("network", False), given.get("paths"), given.get("scratch", "")
    is_list = paths is None or (isinstance(paths, list) and all(isinstance(one, str) for one in paths))
    if not isinstance(network, bool) or not isinstance(scratch, str) or not is_list:
        raise BootInvalid("sandbox: network is true or false, paths a list of strings or null, scratch a string")
    return SandboxBoot(network=network, paths=None if paths is None else tuple(paths), scratch=scratch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """The configuration of one worker."""

    worker: str
    pool: str
    adapter: str  # dotted path of the class
    parent: int  # pid of the broker
    listen_fd: int  # a Unix socket that the broker listens on
    shared_page_fd: int
    profile: str = "process"
    threads: int = 1
    parallelism: float = 0.0  # of these threads without a GIL, as another worker measured it; 0: this one measures
    instance: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)
    blas_threads: int = 0
    max_payload: int = 1 << 20
    buffer_fd: int = 0  # a datagram socket for descriptors of arguments; 0: none come
    kept_bytes: int = MOST_BYTES  # of memory files that were sent and are kept to be written again
    thread_checks: bool = False
    no_new_privs: bool = False  # no program that it starts gets more rights, such as sudo
    sandbox: SandboxBoot = field(default_factory=SandboxBoot)
    protocol: int = PROTOCOL

    def __post_init__(self) -> None:
        _check_protocol(self.protocol)
        _check_strings(self, "worker", "pool", "adapter", "profile", "instance")
        _check_numbers(
            self, "parent", "listen_fd", "shared_page_fd", "threads", "blas_threads", "max_payload", "buffer_fd"
        )
        _check_numbers(self, "kept_bytes")
        if type(self.parallelism) not in (int, float) or not self.parallelism >= 0:
            raise BootInvalid(f"parallelism: {self.parallelism!r} is not a number of at least 0")
        if self.profile not in PROFILES:
            raise BootInvalid(f"profile: {self.profile!r} is not one of {', '.join(PROFILES)}")
        if self.profile == "thread" and self.threads < 1:
            raise BootInvalid("threads: the thread profile needs at least 1")
        _check_switches(self, "thread_checks", "no_new_privs")
        if not isinstance(self.args, Mapping):
            raise BootInvalid("args: must be an object")
        object.__setattr__(self, "sandbox", _sandbox(self.sandbox))

    @property
    def slots(self) -> int:
        """Number of threads that run commands; 0: the main thread runs them."""
        return self.threads if self.profile == "thread" else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateBoot:
    """The configuration of a template: what it loads for the workers that it forks."""

    template: str
    pool: str
    adapter: str  # dotted path of the class
    parent: int  # pid of the broker
    args: Mapping[str, Any] = field(default_factory=dict)
    always: bool = False  # also fork an adapter without preload()
    no_new_privs: bool = False  # also for the workers that it forks
    sandbox: SandboxBoot = field(default_factory=SandboxBoot)  # also for the workers that it forks
    protocol: int = PROTOCOL

    def __post_init__(self) -> None:
        _check_protocol(self.protocol)
        _check_strings(self, "template", "pool", "adapter")
        _check_numbers(self, "parent")
        _check_switches(self, "always", "no_new_privs")
        if not isinstance(self.args, Mapping):
            raise BootInvalid("args: must be an object")
        object.__setattr__(self, "sandbox", _sandbox(self.sandbox))


def _check_protocol(protocol: object) -> None:
    if protocol != PROTOCOL:
        raise BootInvalid(
            f"protocol: the broker uses version {protocol!r} and this worker {PROTOCOL}; "
            "install the same release of django-snakepit in the pool's interpreter"
        )


def _check_strings(document: object, *names: str) -> None:
    for name in names:
        if not isinstance(value := getattr(document, name), str):
            raise BootInvalid(f"{name}: {value!r} is not a string")


def _check_numbers(document: object, *names: str) -> None:
    for name in names:
        if type(value := getattr(document, name)) is not int or value < 0:
            raise BootInvalid(f"{name}: {value!r} is not an integer of at least 0")


def _check_switches(document: object, *names: str) -> None:
    for name in names:
        if not isinstance(value := getattr(document, name), bool):
            raise BootInvalid(f"{name}: {value!r} is not true or false")


Document = TypeVar("Document", Boot, TemplateBoot)


def parse(text: bytes, kind: type[Document]) -> Document:
    """Parse and check a document; raises BootInvalid, which names the field.

    >>> parse(b'{"worker": "a-1"}', Boot)
    Traceback (most recent call last):
        ...
    snakepit.workers.process.boot.BootInvalid: the boot document lacks adapter, listen_fd, parent, pool, shared_page_fd
    """
    try:
        document = json.loads(text)
    except ValueError as why:
        raise BootInvalid(f"the boot document is not JSON: {why}") from None
    if not isinstance(document, dict):
        raise BootInvalid("the boot document must be an object")
    known = {one.name: one.default is MISSING and one.default_factory is MISSING for one in fields(kind)}
    if unknown := sorted(document.keys() - known):
        raise BootInvalid(f"the boot document has unknown fields: {', '.join(unknown)}")
    if missing := sorted(name for name, needed in known.items() if needed and name not in document):
        raise BootInvalid(f"the boot document lacks {', '.join(missing)}")
    return kind(**document)


def read(descriptor: int, kind: type[Document]) -> Document:
    """Read the document from a descriptor, and close it."""
    try:
        with os.fdopen(descriptor, "rb") as source:
            return parse(source.read(), kind)
    except OSError as why:
        raise BootInvalid(f"the boot document cannot be read from descriptor {descriptor}: {why}") from None
