"""Calls that find a node: brokers in directories of their own are the nodes, with real processes and sockets."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from snakepit.pools.broker.errors import (
    BrokerError,
    BrokerUnreachable,
    DeadlineExceeded,
    NodeDraining,
    PoolUnknown,
    QueueFull,
)
from snakepit.pools.client import Answer, connect
from snakepit.pools.client.address import Target
from snakepit.pools.client.routing import router, trip, watch
from snakepit.pools.client.routing.client import RoutedClient
from snakepit.pools.client.routing.discovery import KnownNode
from snakepit.pools.client.routing.router import Router
from tests.brokers import PATIENCE, RunningBroker, broker

BOTH = {"size": 2}


class FixedNodes:
    """Nodes that a test names; the first is the one of this host."""

    def __init__(self, *brokers: RunningBroker, own: bool = True) -> None:
        targets = [Target.parse(str(one.runtime / "broker.sock"), connect_timeout=PATIENCE) for one in brokers]
        self.own: Target | None = targets[0] if own else None
        self._known = tuple(
            KnownNode(str(at), target, own=own and at == 0, named=False) for at, target in enumerate(targets)
        )
        self.first: tuple[KnownNode, ...] = self._known[:1] if own else ()

    def find(self) -> tuple[KnownNode, ...]:
        return self._known


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    pools = {"both": BOTH, "far": {"size": 2}, "narrow": {"size": 1, "queue_limit": 10}}
    keys = tmp_path_factory.mktemp("routing") / "keys.json"
    keys.write_text(json.dumps({"snk_web": {"scopes": ["run", "view"]}}))
    listen = json.dumps({"keys": str(keys)})  # on the loopback interface, without TLS
    with broker(pools, env={**os.environ, "LISTEN_CONFIG": listen}) as running:
        running.ready("both", 2)
        running.ready("far", 2)
        running.ready("narrow")
        yield running


@pytest.fixture(scope="module")
def near() -> Iterator[RunningBroker]:
    with broker({"both": BOTH, "narrow": {"size": 1, "queue_limit": 0}}) as running:
        running.ready("both", 2)
        running.ready("narrow")
        yield running


@pytest.fixture
def patient_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that stands still for a moment, no node becomes silent, and no first answer comes too late."""
    for bound in ("PATIENCE", "FIRST_FIND"):
        monkeypatch.setattr(watch, bound, PATIENCE)
    for module in (router, trip):
        monkeypatch.setattr(module, "PATIENCE", PATIENCE)
    monkeypatch.setattr(router, "COMMANDS", PATIENCE)


@pytest.fixture
def client(near: RunningBroker, far: RunningBroker) -> RoutedClient:
    source = FixedNodes(near, far)
    assert source.own is not None
    return RoutedClient(source.own, Router(source))


def boot(node: RunningBroker) -> str:
    """The part of each worker's id that is the broker's."""
    return node.status().workers[0].id.rsplit("-", 2)[1]


def taker(client: RoutedClient, pool: str) -> str:
    return client.execute(pool, "echo", value=1).worker.rsplit("-", 2)[1]


def eventually(question: Callable[[], bool], patience: float = PATIENCE) -> None:
    end = time.monotonic() + patience
    while not question():
        assert time.monotonic() < end, "it did not come true"


def test_at_rest_calls_stay_on_this_host_and_no_thread_watches(client: RoutedClient, near: RunningBroker) -> None:
    assert {taker(client, "both") for _ in range(20)} == {boot(near)}
    assert client.router._watch is None


WAYS: dict[str, Callable[[RoutedClient], Any]] = {
    "call": lambda client: client.call("far", "echo", value=5),
    "acall": lambda client: asyncio.run(client.acall("far", "echo", value=5)),
    "submit": lambda client: client.submit("far", "echo", value=5).result(PATIENCE),
    "map": lambda client: list(client.map("far", "echo", [{"value": 5}] * 3))[2],
    "stream": lambda client: list(client.stream("far", "count", to=6))[-1],
    "events": lambda client: list(client.events("far", "echo", value=5))[-1].value,
    "astream": lambda client: asyncio.run(_last(client))[-1],
    "listen": lambda client: _answer_of(client),
    "executor": lambda client: client.pool("far").submit("echo", {"value": 5}).result(PATIENCE),
}


async def _last(client: RoutedClient) -> list[Any]:
    return [chunk async for chunk in client.astream("far", "count", to=6)]


def _answer_of(client: RoutedClient) -> Any:
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    call = client.listen("far", "echo", {"value": 5}, inbox.put)
    answer = call.read(inbox.get(timeout=PATIENCE))
    assert isinstance(answer, Answer)
    return answer.value


@pytest.mark.parametrize("way", WAYS)
def test_every_kind_of_call_goes_to_the_node_that_hosts_the_pool(
    client: RoutedClient, way: str, patient_watch: None
) -> None:
    assert WAYS[way](client) == 5
    assert not client.router.rests("far")
    assert client.router.rests("both")  # the others stay here
    assert WAYS[way](client) == 5


def test_the_commands_of_a_pool_come_from_a_node_that_has_it(client: RoutedClient, patient_watch: None) -> None:
    assert "echo" in {one.name for one in client.commands("far")}


def test_a_pool_that_no_node_has_is_unknown(client: RoutedClient) -> None:
    with pytest.raises(PoolUnknown):
        client.call("nowhere", "echo")


def test_a_full_queue_here_moves_the_call(
    client: RoutedClient, far: RunningBroker, tmp_path: Path, patient_watch: None
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    held = client.submit("narrow", "hold", path=str(pipe))
    eventually(lambda: client.status("narrow").pools[0].busy == 1)
    with pytest.raises(QueueFull):
        _plain(client).call("narrow", "echo")
    assert taker(client, "narrow") == boot(far)
    pipe.open("w").close()
    held.result(PATIENCE)


def _plain(client: RoutedClient) -> Any:
    from snakepit.pools.client.client import Client

    return Client(client.target)


def test_a_drained_node_gets_nothing_until_it_is_resumed(
    client: RoutedClient, near: RunningBroker, far: RunningBroker, patient_watch: None
) -> None:
    near.client.drain("a test", "maintenance")
    try:
        assert {taker(client, "both") for _ in range(10)} == {boot(far)}
    finally:
        near.client.resume("a test", "")
    eventually(lambda: taker(client, "both") == boot(near))


def test_if_every_node_is_drained_the_error_says_so(
    client: RoutedClient, near: RunningBroker, far: RunningBroker, patient_watch: None
) -> None:
    for node in (near, far):
        node.client.drain("a test", "maintenance")
    try:
        with pytest.raises(NodeDraining, match="maintenance"):
            client.call("both", "echo")
    finally:
        for node in (near, far):
            node.client.resume("a test", "")


def test_without_a_broker_here_a_drained_node_gives_the_error(
    far: RunningBroker, tmp_path: Path, patient_watch: None
) -> None:
    source = FixedNodes(far, own=False)
    own = Target.parse(str(tmp_path / "broker.sock"))
    source.own, source.first = own, (KnownNode("here", own, own=True, named=False),)
    source._known = (*source.first, *source._known)
    far.client.drain("a test", "maintenance")
    try:
        with pytest.raises(NodeDraining, match="maintenance"):
            RoutedClient(own, Router(source)).call("both", "echo")
    finally:
        far.client.resume("a test", "")


def test_a_cancel_reaches_the_node_that_has_the_call(
    client: RoutedClient, far: RunningBroker, patient_watch: None
) -> None:
    client.call("far", "echo")
    future = client.submit("far", "sleep", seconds=3600)
    eventually(lambda: far.pool("far").busy == 1)
    listened = client.listen("far", "sleep", {"seconds": 3600}, lambda item: None)
    eventually(lambda: far.pool("far").busy == 2)
    assert future.cancel()
    listened.close()
    eventually(lambda: far.pool("far").busy == 0)


def test_the_deadline_holds_over_all_nodes(client: RoutedClient, far: RunningBroker, patient_watch: None) -> None:
    with pytest.raises(DeadlineExceeded):
        client.call("far", "sleep", seconds=3600, timeout=1.0)  # without a deadline it is an hour


def test_a_frozen_node_costs_one_deadline_and_then_gets_nothing(
    client: RoutedClient, near: RunningBroker, far: RunningBroker
) -> None:
    near_boot = boot(near)
    near.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(DeadlineExceeded):
            client.call("both", "echo", value=1, timeout=0.2)
        eventually(lambda: not client.router.rests("both"))
        assert taker(client, "both") == boot(far)
    finally:
        near.process.send_signal(signal.SIGCONT)
    eventually(lambda: taker(client, "both") == near_boot)


def test_if_the_only_node_of_a_pool_is_silent_the_error_names_it(client: RoutedClient, far: RunningBroker) -> None:
    client.call("far", "echo")

    def error() -> BrokerError | None:
        return client.submit("far", "echo", timeout=0.5).exception(PATIENCE)  # type: ignore[return-value]

    def names_it() -> bool:
        found = error()
        return isinstance(found, BrokerUnreachable) and "Pool far lives on 1, which does not answer" in str(found)

    far.process.send_signal(signal.SIGSTOP)
    try:
        eventually(names_it)
    finally:
        far.process.send_signal(signal.SIGCONT)
    eventually(lambda: error() is None)


def test_a_node_that_dies_loses_no_idempotent_call_and_is_used_again(far: RunningBroker, tmp_path: Path) -> None:
    pipes = [tmp_path / f"pipe-{number}" for number in range(4)]
    for pipe in pipes:
        os.mkfifo(pipe)
    with tempfile.TemporaryDirectory(prefix="snakepit-", dir="/tmp") as home, ExitStack() as ended:
        near = RunningBroker({"both": {"size": 4}}, Path(home), 3600.0)
        ended.callback(lambda: near.stop())
        near.ready("both", 4)
        source = FixedNodes(near, far)
        assert source.own is not None
        client = RoutedClient(source.own, Router(source))
        held = [client.submit("both", "hold_again", path=str(pipe), timeout=PATIENCE) for pipe in pipes[:2]]
        unsafe = client.submit("both", "hold", path=str(pipes[2]), timeout=PATIENCE)
        with ThreadPoolExecutor() as threads:
            held.append(threads.submit(client.call, "both", "hold_again", path=str(pipes[3]), timeout=PATIENCE))
            eventually(lambda: near.pool("both").busy == 4)
            near.stop(signal.SIGKILL)
            with pytest.raises(BrokerUnreachable):
                unsafe.result(PATIENCE)
            for pipe in (*pipes[:2], pipes[3]):
                threads.submit(lambda path=pipe: path.open("w").close())
            assert all(one.result(PATIENCE) for one in held)
        assert {taker(client, "both") for _ in range(5)} == {boot(far)}
        near = RunningBroker({"both": {"size": 4}}, Path(home), 3600.0)
        near.ready("both")
        eventually(lambda: taker(client, "both") == boot(near))


def test_calls_with_the_same_key_go_to_the_same_node_and_worker(
    near: RunningBroker, far: RunningBroker, patient_watch: None
) -> None:
    clients = []
    for brokers in ((near, far), (far, near)):  # a process on each of two hosts
        source = FixedNodes(*brokers)
        source._known = tuple(replace(one, name=one.target.path) for one in source._known)
        source.first = source._known[:1]
        assert source.own is not None
        clients.append(RoutedClient(source.own, Router(source)))

    def takers(key: str) -> set[str]:
        stream = clients[0].stream("both", "count", {"to": 3}, affinity=key)
        assert list(stream) == [0, 1, 2]
        assert stream.answer is not None
        again = (client.execute("both", "echo", value=1, affinity=key).worker for client in clients * 2)
        return {stream.answer.worker, *again}

    def homes() -> list[set[str]]:
        return [takers(f"user-{number}") for number in range(12)]

    def each_has_one() -> bool:  # a node that was too busy to report takes no calls for a moment
        found = homes()
        nodes = {worker.rsplit("-", 2)[1] for workers in found for worker in workers}
        return all(len(workers) == 1 for workers in found) and nodes == {boot(near), boot(far)}

    eventually(each_has_one)


def test_without_a_broker_on_this_host_the_nodes_share_the_calls(
    near: RunningBroker, far: RunningBroker, patient_watch: None
) -> None:
    source = FixedNodes(near, far, own=False)
    client = RoutedClient(Target.parse("/nonexistent/broker.sock"), Router(source))

    def is_shared() -> bool:  # a node that was too busy to report takes no calls for a moment
        takers = Counter(taker(client, "both") for _ in range(200))
        return takers.keys() == {boot(near), boot(far)} and min(takers.values()) > 20

    eventually(is_shared)  # the shares of each are tested without processes


def test_a_node_on_the_network_takes_calls_by_its_key(
    near: RunningBroker, far: RunningBroker, patient_watch: None
) -> None:
    address = far.status().node.listeners[0].address
    source = FixedNodes(near, far)
    remote = Target.parse(address, "snk_web", tls=False, connect_timeout=PATIENCE)
    source._known = (source._known[0], KnownNode("1", remote, named=False))
    assert source.own is not None
    client = RoutedClient(source.own, Router(source))
    assert taker(client, "far") == boot(far)
    assert list(client.stream("far", "count", to=6))[-1] == 5
    port = address.rpartition(":")[2]
    by_name = connect(f"dns:///localhost:{port}", key="snk_web", tls=False, connect_timeout=PATIENCE)
    assert taker(cast(RoutedClient, by_name), "far") == boot(far)
    assert cast(RoutedClient, by_name).router.is_ready  # the addresses behind the name answered
