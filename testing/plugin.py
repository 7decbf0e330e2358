"""The pytest plugin: the fixtures `snakepit_pools` and `snakepit_calls`, and the marker that configures them.

It imports nothing but pytest until a fixture is used, and does nothing in projects that use none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from snakepit.testing.calls import Calls
    from snakepit.testing.pools import Pools

MARKER = "snakepit_pools"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{MARKER}(pools=None, workers=2, jobs='inline'): what the fixture of this name runs; see override_pools()",
    )


@pytest.fixture
def snakepit_pools(request: pytest.FixtureRequest) -> Iterator[Pools]:
    """Run the project's pools in the process of this test; the value is a snakepit.testing.Pools."""
    from snakepit.testing.pools import override_pools

    marker = request.node.get_closest_marker(MARKER)
    with override_pools(*(marker.args if marker else ()), **(marker.kwargs if marker else {})) as pools:
        yield pools


@pytest.fixture
def snakepit_calls(snakepit_pools: Pools) -> Calls:
    """The calls that this test's code has made; a snakepit.testing.Calls."""
    return snakepit_pools.calls
