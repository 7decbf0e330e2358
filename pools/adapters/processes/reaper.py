"""The reaper process: it ends what a killed broker leaves behind.

Workers end with their broker by the parent-death signal (PDEATHSIG). The processes that *they* started do not, because
the kernel clears that signal at fork. The reaper waits on a pipe whose other end only the broker has. When the broker
ends, however it ends, the pipe closes, and the reaper kills every process whose environment carries the broker's
instance token.

It runs as a script on the standard library alone: `python -I reaper.py FD INSTANCE DIRECTORY`.
"""

from __future__ import annotations

import os
import signal
import sys
import time

ROUNDS = 20  # a process may fork while it is being looked for; the next round finds the new one
PAUSE = 0.05  # seconds between two rounds
VARIABLE = b"SNAKEPIT_INSTANCE="


def carriers(instance: str) -> list[int]:
    """The processes of this user whose environment carries the token. An empty token has none."""
    if not instance:
        return []
    wanted = VARIABLE + instance.encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as environ:
                    if wanted in environ.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                continue  # it has ended, or belongs to another user
    return found


def kill_carriers(instance: str) -> int:
    """Send SIGKILL to every carrier until none is left. Returns how many there were.

    The signal goes through a pidfd, and the environment is read again after the pidfd was opened: in between, the pid
    may have passed to another process.
    """
    killed: set[int] = set()
    for _ in range(ROUNDS):
        found = carriers(instance)
        if not found:
            break
        for pid in found:
            if _kill(pid, instance):
                killed.add(pid)
        time.sleep(PAUSE)
    return len(killed)


def _kill(pid: int, instance: str) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        with open(f"/proc/{pid}/environ", "rb") as environ:
            if VARIABLE + instance.encode() not in environ.read().split(b"\0"):
                return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        os.close(pidfd)


def main() -> None:
    fd, instance, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Ctrl-C in a terminal reaches the broker and this process; this one acts when the broker has ended.
        signal.signal(number, signal.SIG_IGN)
    os.read(fd, 1)
    kill_carriers(instance)
    if instance and instance in _read(os.path.join(directory, "instance")):  # no other broker has taken over yet
        for name in ("broker.sock", "token"):
            try:
                os.unlink(os.path.join(directory, name))
            except OSError:
                continue


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


if __name__ == "__main__":
    main()
