"""A broker of one pool, for tests of the client: a real grpclib server on a real Unix socket, in a thread of its own.

Its commands: `echo`, `slow` (until released), `count` (a stream that honours credits), `noisy` (progress and log
lines), `fail`, `raw` (bytes), `drop` (the connection breaks), `mute` (never answers), `quit` (ends the session),
`stop` (ends it as a broker that has stopped).
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.wire import broker_pb2 as pb
from snakepit.pools.wire.broker_grpc import BrokerBase
from snakepit.workers.buffers import ATTACHMENT
from snakepit.workers.schema import signature, typed
from snakepit.workers.schema.value import encode_json
from snakepit.workers.wire.worker_pb2 import Command, Delivery
from tests.brokers import PATIENCE

POOL = "echo"


class Run:
    """One call in the fake broker."""

    def __init__(self, session: Session, call: pb.Call, *, together: bool = False) -> None:
        self.session, self.call, self.together = session, call, together
        self.credit = asyncio.Semaphore(call.credit)
        self.task: asyncio.Task[None] | None = None
        self.typed = call.arguments.startswith(typed.WRAPPER)
        inline = {name: data for name, data in call.attachments.items() if name == ATTACHMENT}
        self.arguments = signature.decode(call.arguments or b"{}", inline)

    def reply(self, **kind: Any) -> None:
        self.session.send(pb.Reply(ref=self.call.ref, **kind))

    def result(self, value: Any) -> None:
        content = {"raw": value} if isinstance(value, bytes) else {"json": self.json(value)}
        timing = pb.Timing(call=f"c{self.call.ref}", worker="echo-1", queued_seconds=0.25, run_seconds=0.5)
        if self.session.reply_socket and self.call.direct_reply and "json" in content and len(content["json"]) < 32_768:
            self.session.deliver(self.call.ref, content["json"], timing)
            return
        self.reply(result=pb.Result(value=content, timing=timing))

    def json(self, value: Any) -> bytes:
        return typed.encode(value, 2**28) if self.typed else encode_json(value, 2**28)

    def error(self, code: str, message: str, **more: Any) -> None:
        self.reply(error=pb.Error(code=code, message=message, **more))


class Session:
    def __init__(self, broker: FakeBroker, stream: Any) -> None:
        self.broker, self.stream = broker, stream
        self.runs: dict[int, Run] = {}
        self.outbox: asyncio.Queue[pb.Reply] = asyncio.Queue()

    def send(self, reply: pb.Reply) -> None:
        self.outbox.put_nowait(reply)

    @property
    def reply_socket(self) -> str:
        name = self.stream.metadata.get("snakepit-reply-socket", "") if self.broker.delivers else ""
        return str(self.broker.path.with_name(name)) if name else ""

    def deliver(self, ref: int, data: bytes, timing: pb.Timing) -> None:
        delivery = Delivery(ref=ref, json=data, call=timing.call, worker=timing.worker)
        delivery.queued_seconds, delivery.run_seconds = timing.queued_seconds, timing.run_seconds
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(self.reply_socket)
            self.broker.delivered += 1  # first: the client's thread may look as soon as it has the delivery
            sender.send(delivery.SerializeToString())

    async def serve(self) -> None:
        writer = asyncio.create_task(self._write())
        try:
            while (message := await self.stream.recv_message()) is not None:
                self.broker.messages += 1
                for request in message.requests:
                    self._take(request)
        finally:
            for run in self.runs.values():  # no client waits for them: the same as a Cancel for each
                if run.task is not None and run.task.cancel():
                    self.broker.cancelled.append(run.call.command)
                    self.broker.changed.set()
            writer.cancel()

    async def _write(self) -> None:
        while True:
            replies = [await self.outbox.get()]
            while not self.outbox.empty():
                replies.append(self.outbox.get_nowait())
            await self.stream.send_message(pb.Replies(replies=self._joined(replies)))

    def _joined(self, replies: list[pb.Reply]) -> list[pb.Reply]:
        """Results in JSON of calls that came together, as one reply; its place is that of the last of them."""
        results = pb.Results(worker="echo-1")
        others = []
        for reply in replies:
            in_json = reply.result.value.WhichOneof("value") == "json"  # the end of a stream has no value
            if reply.WhichOneof("reply") != "result" or not self.runs[reply.ref].together or not in_json:
                others.append(reply)
                continue
            results.refs.append(reply.ref)
            results.json.append(reply.result.value.json)
            results.calls.append(reply.result.timing.call)
            results.queued_seconds.append(reply.result.timing.queued_seconds)
            results.run_seconds.append(reply.result.timing.run_seconds)
        return [*others, pb.Reply(results=results)] if results.refs else others

    def _take(self, request: pb.Request) -> None:
        kind = request.WhichOneof("request")
        if kind == "call":
            self._call(Run(self, request.call))
        elif kind == "calls":
            assert self.broker.takes_calls
            calls = request.calls
            self.broker.batches.append(len(calls.refs))
            for ref, arguments in zip(calls.refs, calls.arguments, strict=True):
                call = pb.Call(ref=ref, pool=calls.pool, command=calls.command, arguments=arguments)
                call.timeout, call.priority = calls.timeout, calls.priority
                call.credit, call.credit_bytes = calls.credit, calls.credit_bytes
                self._call(Run(self, call, together=True))
        elif kind == "cancel":
            run = self.runs[request.cancel.ref]
            self.broker.cancelled.append(run.call.command)
            self.broker.changed.set()
            if run.task is not None:
                run.task.cancel()
        elif kind == "credit":
            self.broker.granted += request.credit.chunks
            for _ in range(request.credit.chunks):
                self.runs[request.credit.ref].credit.release()

    def _call(self, run: Run) -> None:
        self.broker.calls.append(run.call)
        self.runs[run.call.ref] = run
        run.task = asyncio.create_task(self._run(run))

    async def _run(self, run: Run) -> None:
        command: Callable[[Run], Awaitable[None]] | None = getattr(self, f"do_{run.call.command}", None)
        if run.call.pool != POOL:
            run.error("pool_unknown", f"There is no pool {run.call.pool}")
        elif command is None:
            run.error("command_unknown", f"{POOL} has no command {run.call.command}")
        else:
            await command(run)

    async def do_echo(self, run: Run) -> None:
        sizes = {name: len(data) for name, data in run.call.attachments.items()}
        run.result({**run.arguments, "attachments": sizes} if sizes else run.arguments)

    async def do_slow(self, run: Run) -> None:
        self.broker.running.set()
        await self.broker.released.wait()
        run.result(run.arguments.get("value"))

    async def do_mute(self, run: Run) -> None:
        self.broker.running.set()
        await asyncio.Event().wait()

    async def do_count(self, run: Run) -> None:
        for number in range(run.arguments["to"]):
            await run.credit.acquire()
            self.broker.sent += 1
            run.reply(chunk={"json": json.dumps(number).encode()})
        run.reply(result=pb.Result(timing=pb.Timing(call="c", worker="echo-1")))

    async def do_noisy(self, run: Run) -> None:
        run.reply(progress=pb.Progress(fraction=0.5, message="half"))
        run.reply(log="a line")
        if run.call.credit:
            await run.credit.acquire()
            run.reply(chunk={"json": b"1"})
        run.result("done")

    async def do_fail(self, run: Run) -> None:
        details = json.dumps({"type": "ValueError", "traceback": "Traceback ..."})
        run.error("adapter_error", "ValueError: no", outcome="failed", details=details, retry_after=1.5)

    async def do_raw(self, run: Run) -> None:
        if run.arguments.get("nested"):
            run.result({"image": b"\x89PNG"})
        else:
            run.result(bytes(run.arguments.get("data") or run.call.attachments["data"]))

    async def do_drop(self, run: Run) -> None:
        self.stream._stream._transport.abort()

    async def do_stop(self, run: Run) -> None:
        """End the session as a broker that has stopped: the `slow` calls have their results, the others never ran."""
        self.broker.released.set()
        slow = [one.task for one in self.runs.values() if one.call.command == "slow" and one.task is not None]
        await asyncio.gather(*slow)
        while not self.outbox.empty():
            await asyncio.sleep(0)
        metadata = {"snakepit-code": "shutting_down", "snakepit-outcome": run.arguments["outcome"]}
        await self.stream.send_trailing_metadata(metadata=metadata)

    async def do_quit(self, run: Run) -> None:
        await self.stream.send_trailing_metadata(status=Status.UNAVAILABLE, status_message="going away")


class Service(BrokerBase):
    def __init__(self, broker: FakeBroker, peer: Any = None) -> None:
        """`peer`: the network connection whose API key counts; None: the token of the broker counts."""
        self.broker = broker
        self.peer = peer

    async def _admit(self, stream: Any) -> None:
        if self.peer is not None:
            try:
                await self.peer.rights(stream.metadata)
            except BrokerError as error:
                raise GRPCError(Status[error.grpc_status], error.message) from None
        elif (stream.metadata or {}).get("authorization") != f"Bearer {self.broker.token}":
            raise GRPCError(Status.UNAUTHENTICATED, "wrong token")

    async def Session(self, stream: Any) -> None:
        await self._admit(stream)
        self.broker.sessions += 1
        if self.broker.takes_calls:
            await stream.send_initial_metadata(metadata={"snakepit-takes": "calls"})
        await Session(self.broker, stream).serve()
        self.broker.farewells += 1

    async def Execute(self, stream: Any) -> None:
        raise GRPCError(Status.UNIMPLEMENTED)

    async def ExecuteStream(self, stream: Any) -> None:
        raise GRPCError(Status.UNIMPLEMENTED)

    async def Status(self, stream: Any) -> None:
        await self._admit(stream)
        request = await stream.recv_message()
        if request.pool not in ("", POOL):
            await stream.send_trailing_metadata(
                status=Status.NOT_FOUND,
                status_message=f"There is no pool {request.pool}",
                metadata={"snakepit-code": "pool_unknown", "snakepit-outcome": "not_started"},
            )
            return
        pool = pb.Pool(name=POOL, profile="process", state="ready", size=1, ready=1, slots=1, free=1, finished=7)
        worker = pb.Worker(id="echo-1", pool=POOL, pid=1, state="ready", capacity=1, gil="on", memory_mb=12.5)
        node = pb.Node(name="fake", draining=self.broker.drained, drain_since=float(self.broker.drained))
        await stream.send_message(pb.StatusReply(node=node, pools=[pool], workers=[worker]))

    async def Commands(self, stream: Any) -> None:
        await self._admit(stream)
        await stream.recv_message()
        command = Command(name="echo", summary="Say it again.", schema='{"type": "object"}')
        await stream.send_message(pb.CommandsReply(commands=[command]))

    async def Sweep(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(pb.SweepReply(pools=1, workers=1))

    async def Apply(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(pb.ApplyReply(pools=1))

    async def Drain(self, stream: Any) -> None:
        request = await stream.recv_message()
        self.broker.drained = not request.resume
        await stream.send_message(pb.DrainReply(draining=self.broker.drained))

    async def Kill(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(pb.KillReply())

    async def Recycle(self, stream: Any) -> None:
        request = await stream.recv_message()
        if request.worker == "never":
            await asyncio.Event().wait()
        await stream.send_message(pb.RecycleReply(planned=1))

    async def Plan(self, stream: Any) -> None:
        request = await stream.recv_message()
        limited = pb.PlannedWorker(id="echo-1", state="ready", seconds_until_ttl=0.0, in_turn=1)
        workers = [limited, pb.PlannedWorker(id=request.worker or "echo-2")]
        await stream.send_message(pb.PlanReply(workers=workers, at_once=1, max_surge=1))

    async def Dump(self, stream: Any) -> None:
        request = await stream.recv_message()
        if request.worker != "echo-1":
            await stream.send_trailing_metadata(
                status=Status.NOT_FOUND,
                status_message=f"No worker {request.worker!r} lives here",
                metadata={"snakepit-code": "worker_unknown", "snakepit-outcome": "not_started"},
            )
            return
        frames = [pb.Frame(file="echo.py", line=3, function="slow"), pb.Frame(file="main.py", function="<module>")]
        main = pb.ThreadStack(thread=1, name="python", state="R", cpu_seconds=1.25, frames=frames)
        blas = pb.ThreadStack(thread=2, name="blas", state="S", note="a thread of a C library")
        calls = [pb.RunningCall(id="c-7", command="slow", seconds=2.5, remaining=57.5)]
        reply = pb.DumpReply(worker="echo-1", pool=POOL, pid=1, at=1e9, threads=[main, blas], calls=calls)
        await stream.send_message(reply)

    async def Metrics(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(pb.MetricsReply(text="snakepit_up 1\n"))


class TrackingServer(Server):
    """Knows its connections: grpclib's own leaves them open when it closes."""

    def __init__(self, handlers: Any) -> None:
        super().__init__(handlers)
        self.protocols: list[Any] = []

    def _protocol_factory(self) -> Any:
        protocol = super()._protocol_factory()
        self.protocols.append(protocol)
        return protocol


class FakeBroker:
    """Start and stop it from a test; what it saw is in its attributes."""

    in_process = False

    def __init__(
        self,
        directory: Path,
        token: str = "secret",
        *,
        takes_calls: bool = True,
        delivers: bool = False,
        tls: ssl.SSLContext | None = None,  # it then listens on a TCP port
        network: Any = None,  # a Network of network_broker.py: the real listener takes its connections
    ) -> None:
        self.tls = tls
        self.network = network
        self.options: dict[str, Any] = {"tls": network.tls, "key": network.key} if network else {}  # of connect()
        self.port = 0
        self.takes_calls = takes_calls
        self.delivers = delivers  # results go into the client's reply_socket where they may
        self.delivered = 0
        self.batches: list[int] = []  # how many calls came together
        self.path = directory / "broker.sock"
        self.token = token
        self.calls: list[pb.Call] = []
        self.cancelled: list[str] = []
        self.drained = False
        self.messages = self.sessions = self.farewells = self.granted = self.sent = 0
        self.changed = threading.Event()  # a Cancel came
        self.running = threading.Event()  # a call that waits has begun

    @property
    def address(self) -> str:
        return f"localhost:{self.port}" if self.tls or self.network else str(self.path)

    def start(self) -> FakeBroker:
        self.path.with_name("token").write_text(self.token + "\n")
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._serve, name="fake-broker")
        self.up = threading.Event()
        self.thread.start()
        assert self.up.wait(PATIENCE)
        return self

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._main())
        self.loop.close()

    async def _main(self) -> None:
        self.ending, self.released = asyncio.Event(), asyncio.Event()
        self.path.unlink(missing_ok=True)
        if self.network is not None:
            await self._serve_network()
            return
        server = TrackingServer([Service(self)])
        if self.tls is None:
            await server.start(path=self.address)
        else:
            listener = socket.create_server(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
            await server.start(sock=listener, ssl=self.tls)
        self.up.set()
        await self.ending.wait()
        # A connection is made in several turns of the loop; one that is half made when the server closes leaks.
        assert server._server is not None
        for listening in server._server.sockets:  # type: ignore[attr-defined]
            self.loop.remove_reader(listening.fileno())
        await self._turns()
        for protocol in server.protocols:  # before `wait_closed`, which waits for them from Python 3.12 on
            if hasattr(protocol.connection, "_transport"):
                protocol.connection._transport.abort()
        server.close()
        await server.wait_closed()
        await self._turns()

    async def _serve_network(self) -> None:
        listener = self.listener = self.network.listen(lambda peer: Service(self, peer))
        self.port = int(listener.status()[0].address.rpartition(":")[2])
        self.up.set()
        await self.ending.wait()
        listener.close()
        for connection in tuple(listener._connections):
            connection.transport.abort()
        await self._turns()

    async def _turns(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    def release(self) -> None:
        """Let the `slow` calls end."""
        self.loop.call_soon_threadsafe(self.released.set)

    def ask(self, read: Callable[[], Any]) -> Any:
        """Read something on the broker's own loop, after all that it has received so far."""

        async def reading() -> Any:
            return read()

        return asyncio.run_coroutine_threadsafe(reading(), self.loop).result(PATIENCE)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.ending.set)
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
