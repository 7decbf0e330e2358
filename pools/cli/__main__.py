"""`python -m snakepit.pools.cli ...` is `snakepit ...`."""

from __future__ import annotations

from snakepit.pools.cli.main import main

if __name__ == "__main__":
    main()
