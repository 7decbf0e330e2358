"""The keeper: a small process that ends what a killed broker leaves behind.

Workers die with their broker by themselves (PDEATHSIG), but what *they* started does not: the kernel clears that
signal at fork. The keeper waits on a pipe whose other end only the broker has. When the broker ends, however it ends,
the pipe closes, and every process that carries the broker's instance token in its environment is killed.

Runs as a plain script on the standard library alone: `python -I keeper.py FD INSTANCE DIRECTORY`.
"""

from __future__ import annotations

import os
import signal
import sys
import time

ROUNDS = 20  # a process may fork while it is being looked for; every round finds what the one before missed
PAUSE = 0.05  # seconds between two rounds
VARIABLE = b"SNAKEPIT_INSTANCE="


def carriers(instance: str) -> list[int]:
    """The processes of this user whose environment carries the token."""
    wanted = VARIABLE + instance.encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as environ:
                    if wanted in environ.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                continue  # gone meanwhile, or another user's
    return found


def kill_carriers(instance: str) -> int:
    """SIGKILL to every carrier, until none is found. Returns how many there were.

    The signal goes through a pidfd, and the environment is read again after it was opened: between the first look
    and the signal the number may have passed to a stranger.
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
        signal.signal(number, signal.SIG_IGN)  # the terminal's Ctrl-C is for the broker; its end is our signal
    os.read(fd, 1)
    kill_carriers(instance)
    if instance in _read(os.path.join(directory, "instance")):  # no successor has taken over yet
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
