"""The user that workers run as, if it is another one than the broker's: SNAKEPIT["WORKER_USER"].

Such a worker cannot read what belongs to the broker: its memory, the runtime directory with the token, the database
file. It gets what it needs as open descriptors: its listening socket, shared page and output pipe. Its temporary
directory, and the link to this package, are in a directory of their own, because the runtime directory is closed to it.
"""

from __future__ import annotations

import ctypes
import grp
import hashlib
import os
import pwd
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# To start a process as another user, to end it, to give it a directory, to remove that, to read its memory size.
NEEDED = {0: "CAP_CHOWN", 1: "CAP_DAC_OVERRIDE", 5: "CAP_KILL", 6: "CAP_SETGID", 7: "CAP_SETUID", 19: "CAP_SYS_PTRACE"}
PR_CAP_AMBIENT, AMBIENT_RAISE = 47, 2
CAPABILITY_VERSION = 0x20080522


class WorkerUserError(Exception):
    """Workers cannot run as the user that the settings name; the message says what to do."""


@dataclass(frozen=True, slots=True)
class WorkerUser:
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = ""  # empty: a worker's temporary directory

    def own(self, path: Path) -> None:
        """Give a directory of the broker to this user."""
        os.chown(path, self.uid, self.gid)


def find_user(user: str, groups: Iterable[str] = ()) -> WorkerUser | None:
    """The user of this machine with this name or number; None for an empty name. Raises WorkerUserError."""
    if not user:
        return None
    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        entry = None
    if entry is None and not user.isdigit():
        raise WorkerUserError(f"SNAKEPIT['WORKER_USER']: this machine has no user {user!r}; create it, or use a number")
    uid, gid = (entry.pw_uid, entry.pw_gid) if entry else (int(user), int(user))
    if uid in (0, os.geteuid()):
        raise WorkerUserError(f"SNAKEPIT['WORKER_USER']: {user!r} is root or the broker's own user; use a weaker one")
    home = entry.pw_dir if entry and entry.pw_dir != "/" and os.path.isdir(entry.pw_dir) else ""
    return WorkerUser(uid, gid, tuple(map(_group, groups)), home)


def _group(name: str) -> int:
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise WorkerUserError(f"SNAKEPIT['WORKER_GROUPS']: this machine has no group {name!r}") from None


def require_capabilities() -> None:
    """Raise WorkerUserError if this process may not start processes of another user and look after them."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        raise WorkerUserError("SNAKEPIT['WORKER_USER'] needs Linux") from None
    has = int(status.partition("\nCapEff:\t")[2].split()[0], 16)
    if lacking := [name for bit, name in NEEDED.items() if not has >> bit & 1]:
        raise WorkerUserError(
            f"SNAKEPIT['WORKER_USER'] needs a broker that runs as root or has {', '.join(NEEDED.values())}; "
            f"it lacks {', '.join(lacking)}"
        )


def open_place(runtime: Path) -> Path:
    """Create or check the directory of what workers must reach. Others may pass through it, and not list it."""
    mark = hashlib.sha256(os.fsencode(runtime.absolute())).hexdigest()[:8]
    place = Path(tempfile.gettempdir()) / f"snakepit-workers-{os.geteuid()}-{mark}"
    place.mkdir(mode=0o711, exist_ok=True)
    found = os.lstat(place)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise WorkerUserError(f"{place} is not a directory of the broker's user; remove it")
    place.chmod(0o711)  # whatever the umask is
    return place


@contextmanager
def without_capabilities() -> Iterator[None]:
    """Give a process that is started in this context none of the broker's capabilities.

    Ambient capabilities pass through exec(), also to another user: the worker would have the broker's rights. They
    end with the inheritable ones. Both belong to a thread, so this is for the thread that starts the process.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header, before = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    ambient = _ambient()
    libc.capget(header, before)
    less = (ctypes.c_uint32 * 6)(*before)
    less[2] = less[5] = 0  # the inheritable ones, in two halves; before them stand the effective and permitted ones
    libc.capset(header, less)
    try:
        yield
    finally:
        libc.capset(header, before)
        for bit in range(ambient.bit_length()):
            if ambient >> bit & 1:
                libc.prctl(PR_CAP_AMBIENT, AMBIENT_RAISE, bit, 0, 0)


def _ambient() -> int:
    status = Path("/proc/thread-self/status").read_text()
    return int(status.partition("\nCapAmb:\t")[2].split()[0], 16)
