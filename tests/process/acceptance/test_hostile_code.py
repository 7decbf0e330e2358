"""Code of a worker that attacks what the worker shares with its broker: the broker and the calls of others go on."""

from __future__ import annotations

import pytest

from tests.brokers import broker
from tests.process.acceptance.test_dump import dump_until

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize("profile", ["process", "thread"])
def test_a_worker_that_truncates_its_memory_files_does_not_end_the_broker(profile: str) -> None:
    with broker({"p": {"adapter": "hostile", "profile": profile, "size": 1}}) as node:
        node.ready("p")
        assert node.client.call("p", "truncate_all") == 0
        assert [node.client.call("p", "echo", value=number) for number in range(3)] == [0, 1, 2]
        dump_until(node, node.status("p").workers[0].id, lambda found: bool(found.threads))
        assert node.pool("p").died == 0
