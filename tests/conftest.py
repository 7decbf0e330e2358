"""What all tests share: real servers, and the rule that a machine which calls itself CI skips nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests import services


def unavailable(reason: str) -> None:
    """Skip, with the reason; where CI=true fail, because a green run must mean that everything ran."""
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
