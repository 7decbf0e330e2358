"""`make cluster`: three hosts on this machine, made of namespaces, with a broker and a Celery worker each.

    python -m benchmarks.cluster                     # faults for 60 seconds with 300 callers; checks what is promised
    python -m benchmarks.cluster --seconds 120 --callers 60
    python -m benchmarks.cluster demo                # the demo's pools, with a dashboard on each host; Ctrl-C ends it

Needs Linux, root, iproute2, PostgreSQL and a Redis server. The exit code is 1 if a promise did not hold, and 2 if the
hosts cannot be made here. The outcome is stored in benchmarks/cluster.json and docs/howto/several-machines.md.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from benchmarks.cluster.network import missing
from tests import guardian


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("faults", "demo"), default="faults", help="default: faults")
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of the faults")
    parser.add_argument("--callers", type=int, default=300, help="number of callers")
    found = parser.parse_args(given)
    if not 30 <= found.seconds <= 3600:
        parser.error(f"--seconds: {found.seconds:g} is outside 30 to 3600")
    if not 3 <= found.callers <= 3000:
        parser.error(f"--callers: {found.callers} is outside 3 to 3000")
    return found


def main() -> int:
    asked = arguments()
    if lacks := missing():
        print(lacks, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    guard = guardian.start()  # ends the processes, also if this one is killed
    try:
        from benchmarks.cluster import demo, report

        if asked.what == "demo":
            demo.run()
        return report.run(asked.callers, asked.seconds)
    except KeyboardInterrupt:
        return 0 if asked.what == "demo" else 130
    finally:
        if guard:
            guard.close()


if __name__ == "__main__":
    sys.exit(main())
