"""What all tests share: signals at their defaults, real servers, a guardian, and no skipped test where CI=true."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from snakepit.workers.process import inherited
from tests import guardian, services

collect_ignore = ["generated"]  # programs that tests run with a generated client
GUARDIAN = pytest.StashKey[guardian.Guardian | None]()


def pytest_configure(config: pytest.Config) -> None:
    # A background job of a script, or of `nohup`, ignores SIGINT, and every process that a test starts would too.
    inherited.reset_signals()
    config.stash[GUARDIAN] = guardian.start()


def pytest_unconfigure(config: pytest.Config) -> None:
    if started := config.stash.get(GUARDIAN, None):
        started.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests: at the end, the other processes of the run would wait for one."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)  # stable: the order within both is that of the seed


def unavailable(reason: str) -> None:
    """Skip with the reason. Fail where CI=true: there a green run means that every test ran."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true, and {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    try:
        services.as_postgres()
        services.postgres_programs()
    except services.Missing as missing:
        unavailable(str(missing))
    with services.postgres() as url:
        yield url


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    try:
        services.valkey_program()
    except services.Missing as missing:
        unavailable(str(missing))
    with services.valkey() as url:
        yield url
