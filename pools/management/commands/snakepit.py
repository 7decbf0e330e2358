"""`manage.py snakepit ...`: the same program as the console script `snakepit`."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Pools of warm Python workers: broker, status, call and more; see `manage.py snakepit --help`."

    def run_from_argv(self, argv: list[str]) -> None:
        # Bypasses Django's parser, so that --help and all options reach the program unchanged.
        from snakepit.pools.cli.main import run

        sys.exit(run(argv[2:]))

    def handle(self, *args: Any, **options: Any) -> None:
        """Entry point of `call_command`, which has no command line."""
        from snakepit.pools.cli.main import run

        run(list(args))
