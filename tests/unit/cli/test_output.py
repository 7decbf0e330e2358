"""What the shell prints about an error, beside its message."""

from __future__ import annotations

import pytest
import typer

from snakepit.pools.broker.errors import BrokerError, PeriodicUnknown, PoolUnknown, QueueFull, WorkerUnknown
from snakepit.pools.cli.output import report_errors


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (PoolUnknown("No pool is named 'x'."), "  see: snakepit status"),
        (WorkerUnknown("Node n has no worker 'x'."), "  see: snakepit status"),
        (PeriodicUnknown("No periodic job is named 'x'."), "  see: snakepit periodic list"),
        (PoolUnknown("No pool 'x' on node n. Known are: a."), ""),
        (QueueFull("The queue is full."), ""),
    ],
)
def test_an_unknown_name_comes_with_the_command_that_lists_the_names(
    error: BrokerError, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit), report_errors():
        raise error
    assert ("  see:" in (said := capsys.readouterr().err)) == bool(hint)
    assert hint in said
