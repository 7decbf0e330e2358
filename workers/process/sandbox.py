"""The sandbox of a worker: it gives up the network and files permanently, before it imports the adapter.

The kernel enforces both, also on threads and programs that the adapter starts. The network: a namespace of its own
without any interface. Unix sockets with a path, and open descriptors such as the link to the broker, are not part of
it. Files: Landlock, with a list of what may be read and written. A process that cannot give up what its pool's
definition names raises SandboxUnavailable, and never runs the adapter.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from snakepit.workers.process.boot import SandboxBoot

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_NO_NEW_PRIVS = 38
CAPABILITY_VERSION = 0x20080522
# The numbers are the same on all architectures of Linux.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION, PATH_BENEATH = 1, 1
OLDEST = 3  # an older kernel does not refuse truncate()
WRITABLE = ":rw"

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
MAKE_CHAR, MAKE_BLOCK, TRUNCATE, IOCTL_DEV = 1 << 6, 1 << 11, 1 << 14, 1 << 15
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  # the kernel refuses others for a file
READ = EXECUTE | READ_FILE | READ_DIR
# Signals, and abstract Unix sockets, to processes outside the sandbox.
SCOPES, SCOPES_SINCE, IOCTL_SINCE = 0b11, 6, 5

SYSTEM = (
    "/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/nix/store", "/proc", "/sys/devices/system", "/sys/fs/cgroup",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/timezone", "/etc/mime.types",
    "/etc/hosts", "/etc/host.conf", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services",
    "/etc/protocols", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted",
    "/etc/fonts", "/etc/ld-musl-x86_64.path", "/etc/ld-musl-aarch64.path",
)  # fmt: skip
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
OF_PREFIX = ("bin", "lib", "lib64", "libexec", "include", "share", "pyvenv.cfg")  # the rest may be a project
PACKAGES = ("site-packages", "dist-packages")
CODE = (".py", ".pyc", ".so")
METADATA = (".dist-info", ".egg-info")
NESTED = 3  # levels of namespace packages, such as google.cloud.storage
LOOKED_AT = 2000  # entries of a folder


class SandboxUnavailable(Exception):
    """This machine cannot apply the pool's `sandbox`; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Rule:
    path: Path
    access: int


def enter(sandbox: SandboxBoot) -> None:
    """Give up the network, files or both, and all capabilities. The process must have one thread."""
    if not sandbox.is_active:
        return
    if not sys.platform.startswith("linux"):
        raise SandboxUnavailable("a pool's sandbox needs Linux; remove it from the pool's definition")
    if sandbox.network:
        _leave_network()
    _drop_capabilities()
    if sandbox.paths is not None:
        _restrict_files(sandbox)


def summary(sandbox: SandboxBoot) -> str:
    """What was given up, for the status."""
    files = f"files (Landlock {_landlock_version()})" if sandbox.paths is not None else ""
    return ", ".join(filter(None, ("network" if sandbox.network else "", files)))


# The network


def _leave_network() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    before = _namespace()
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWNET) != 0:  # without the capability: in a user namespace of its own
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
            raise _no_namespace(os.strerror(ctypes.get_errno()))
        _keep_ids(uid, gid)
    if _namespace() == before:
        raise _no_namespace("the namespace did not change")


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/net")
    except OSError as error:
        raise _no_namespace(f"/proc/self/ns/net: {error.strerror}") from None


def _keep_ids(uid: int, gid: int) -> None:
    """Map its own user and group into the namespace; without a map both read 65534."""
    try:
        for name, content in (("setgroups", "deny"), ("gid_map", f"{gid} {gid} 1"), ("uid_map", f"{uid} {uid} 1")):
            Path("/proc/self", name).write_text(content)
    except OSError as error:
        raise _no_namespace(f"{error.filename}: {error.strerror}") from None


def _no_namespace(why: str) -> SandboxUnavailable:
    return SandboxUnavailable(
        f"sandbox: network: this worker cannot leave the network ({why}). The kernel must let user {os.geteuid()} make "
        "user namespaces (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns, the seccomp "
        "profile of a container); or take 'network' out of the pool's sandbox"
    )


# Rights


def _drop_capabilities() -> None:
    """Drop all capabilities permanently: with them a process of root could enter the broker's network again."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:  # Landlock also needs it
        raise SandboxUnavailable(f"sandbox: prctl(PR_SET_NO_NEW_PRIVS): {os.strerror(ctypes.get_errno())}")
    header, none = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    if libc.capset(header, none) != 0:
        raise SandboxUnavailable(f"sandbox: capset: {os.strerror(ctypes.get_errno())}")


# Files


def _restrict_files(sandbox: SandboxBoot) -> None:
    version = _landlock_version()
    if version < OLDEST:
        found = f"version {version}" if version > 0 else "none"
        raise SandboxUnavailable(
            f"sandbox: paths: the kernel needs Landlock version {OLDEST} (Linux 6.2, and landlock in the list of "
            f"/sys/kernel/security/lsm), and has {found}; or take 'paths' out of the pool's sandbox"
        )
    handled = (IOCTL_DEV if version >= IOCTL_SINCE else 0) | (IOCTL_DEV - 1)
    attributes = (ctypes.c_uint64 * 3)(handled, 0, SCOPES if version >= SCOPES_SINCE else 0)
    size = ctypes.sizeof(attributes) if version >= SCOPES_SINCE else 8
    ruleset = _syscall(CREATE_RULESET, ctypes.byref(attributes), size, 0)
    try:
        for rule in rules(sandbox):
            _allow(ruleset, rule, handled)
        _syscall(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def rules(sandbox: SandboxBoot) -> Iterator[Rule]:
    """What the worker may do with which paths: the least that Python needs, its code, and the pool's own paths."""
    write = ~(MAKE_CHAR | MAKE_BLOCK)
    system = [*map(Path, SYSTEM), *_interpreter()]
    yield from (Rule(path, READ) for path in system)
    whole = {path.resolve() for path in system}
    for device in DEVICES:
        yield Rule(Path(device), READ_FILE | WRITE_FILE | IOCTL_DEV)
    for entry in dict.fromkeys(sys.path):
        place = Path(entry or ".").resolve()
        if not whole.intersection((place, *place.parents)):
            yield from _entry(place)
    yield Rule(Path(sandbox.scratch), write)
    for text in sandbox.paths or ():
        path, writable = text.removesuffix(WRITABLE), text.endswith(WRITABLE)
        if not os.path.exists(path):
            raise SandboxUnavailable(f"sandbox: paths: {path} does not exist, or user {os.geteuid()} cannot pass to it")
        yield Rule(Path(path), write if writable else READ)


def _interpreter() -> Iterator[Path]:
    for prefix in {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}:
        yield from (Path(prefix, name) for name in OF_PREFIX)
    yield Path(os.path.realpath(sys.executable))
    package = Path(__file__).parents[2]  # not resolved: the parts of a checkout are links in this folder
    yield package
    yield from (one for one in package.iterdir() if one.is_symlink())


def _entry(entry: Path) -> Iterator[Rule]:
    """An entry of sys.path. Of a project's folder only code is open: a database file may lie beside it."""
    if entry.name in PACKAGES or entry.is_file():
        yield Rule(entry, READ)
    else:
        yield from _code(entry, NESTED)


def _code(folder: Path, depth: int) -> Iterator[Rule]:
    """Modules, packages, and those of namespace packages, which have no module of their own."""
    children = _children(folder)
    if children:
        yield Rule(folder, READ_DIR)  # the import system lists it
    for child in children:
        if child.suffix in CODE or child.name == "__pycache__" or child.suffix in METADATA:
            yield Rule(child, READ)
        elif child.is_dir() and not child.name.startswith("."):
            if any(one.suffix in CODE for one in _children(child)):
                yield Rule(child, READ)
            elif depth:
                yield from _code(child, depth - 1)


def _children(folder: Path) -> list[Path]:
    """Of a folder of data the first entries are enough."""
    try:
        return list(islice(folder.iterdir(), LOOKED_AT))
    except OSError:
        return []


def _allow(ruleset: int, rule: Rule, handled: int) -> None:
    try:
        found = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # most systems lack some of them
        return
    try:
        access = rule.access & handled
        if not stat.S_ISDIR(os.fstat(found).st_mode):
            access &= OF_FILES
        beneath = access.to_bytes(8, sys.byteorder) + found.to_bytes(4, sys.byteorder)
        _syscall(ADD_RULE, ruleset, PATH_BENEATH, beneath, 0)
    finally:
        os.close(found)


def _landlock_version() -> int:
    """0 or less: the kernel has none, or it is switched off."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return int(libc.syscall(ctypes.c_long(CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION)))


def _syscall(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    given = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(libc.syscall(ctypes.c_long(number), *given))
    if result < 0:
        raise SandboxUnavailable(f"sandbox: paths: Landlock call {number}: {os.strerror(ctypes.get_errno())}")
    return result
