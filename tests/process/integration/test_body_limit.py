"""The body limit of the site, on every path, before authentication, under ASGI and WSGI."""

from __future__ import annotations

import asyncio
import encodings
import gc
import io
import json
import socket
import struct
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import django
import pytest
import uvicorn
from django.core.handlers.asgi import ASGIHandler

from snakepit.pools.api import charset, identities, limits, turns
from snakepit.pools.api.request_turns import RequestTurns
from snakepit.site import asgi, http, wsgi

MiB = 2**20
DJANGO = 2_621_440  # bytes, of DATA_UPLOAD_MAX_MEMORY_SIZE
PATHS = ["/admin/login/", "/jobs/", "/playground/run/", "/static/x", "/api/pools/digits/commands/classify", "/nowhere"]


class Endless:
    """An ASGI server whose client sends a body without an end."""

    def __init__(self, path: str, declared: int = 0, *, stall: bool = False) -> None:
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        headers += [(b"content-length", str(declared).encode())] if declared else []
        self.scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
        self.scope |= {"http_version": "1.1", "scheme": "http", "server": ("localhost", 80), "client": ("10.0.0.1", 9)}
        self.read = 0
        self.sent: list[Any] = []
        self._stall = stall

    async def receive(self) -> dict[str, Any]:
        if self._stall and self.read:
            await asyncio.Event().wait()
        if self.read > 64 * MiB:
            return {"type": "http.disconnect"}
        self.read += 2**16
        return {"type": "http.request", "body": bytes(2**16), "more_body": True}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def error(self) -> tuple[int, str]:
        return self.sent[0]["status"], json.loads(self.sent[1]["body"])["error"]["code"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("declared", [0, 2**30])
async def test_an_anonymous_body_is_refused_before_it_is_stored(path: str, declared: int) -> None:
    server = Endless(path, declared)
    await asyncio.wait_for(asgi.application(server.scope, server.receive, server.send), 60)
    assert server.error() == (413, "payload_too_large")
    limit = MiB if path.startswith("/api/") else DJANGO
    assert server.read == 0 if declared else limit < server.read <= limit + 2**16


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_that_does_not_arrive_in_time_ends(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.01)
    server = Endless(path, stall=True)
    await asyncio.wait_for(asgi.application(server.scope, server.receive, server.send), 60)
    assert server.error() == (408, "request_timeout")


async def reads_all(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass


async def refused(limited: limits.BodyLimit, servers: list[Endless]) -> list[int]:
    """Which of these bodies, none of which ends, are refused."""
    tasks = [asyncio.create_task(limited(one.scope, one.receive, one.send)) for one in servers]
    done, _ = await asyncio.wait(tasks, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    for one in tasks:
        one.cancel()
    await asyncio.wait(tasks)
    assert {one._total for one in (limited._anonymous, *limited._proven.values())} == {0}
    return [number for number, one in enumerate(tasks) if one in done]


async def test_of_too_many_incomplete_bodies_the_oldest_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with a key or session that nothing has proven."""
    monkeypatch.setattr(limits, "INCOMPLETE_BYTES", 4 * 2**16)
    limited = limits.BodyLimit(reads_all)
    servers = [Endless("/jobs/", stall=True) for _ in range(5)]
    given = [
        (b"authorization", b"Bearer x"),
        (b"authorization", b"Basic x"),
        (b"cookie", b"sessionid="),
        (b"cookie", b"x"),
    ]
    for one, header in zip(servers, given, strict=False):
        one.scope["headers"].append(header)
    assert await refused(limited, servers) == [0]
    assert servers[0].error() == (429, "limit_reached")
    assert (b"retry-after", b"5") in servers[0].sent[0]["headers"]


async def test_the_incomplete_bodies_of_each_proven_caller_have_a_bound_of_their_own(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    monkeypatch.setattr(limits, "INCOMPLETE_BYTES", 0)
    monkeypatch.setattr(limits, "IDENTITY_BYTES", 2 * 2**16)
    settings.SNAKEPIT = {**settings.SNAKEPIT, "MAX_BODY": 2**15}  # four bodies of this size would be allowed too
    limited = limits.BodyLimit(reads_all)
    servers = [Endless("/jobs/", stall=True) for _ in range(6)]
    for one, name in zip(servers, ("key 1", "key 1", "key 2", "key 2", "key 1"), strict=False):
        one.scope[identities.FIELD] = identities.Identity(name, proven=True)
    assert await refused(limited, servers) == [0]
    assert servers[0].error() == (429, "limit_reached")


async def test_a_body_that_waits_for_its_turn_counts_as_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = [], asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await reads_all(scope, receive, send)
        begun.append(scope["number"])
        await go_on.wait()

    monkeypatch.setattr(turns, "LONGEST_TURN", 1e6)
    limited = limits.BodyLimit(application)
    wrapped = RequestTurns(limited, prefix="/")
    tasks = []
    for number in range(4):
        messages = [{"type": "http.request", "body": bytes(100), "more_body": more} for more in (True, False)]
        scope = Endless("/jobs/").scope | {"number": number}

        async def receive(messages: list[Any] = messages) -> Any:
            return messages.pop(0)

        tasks.append(asyncio.create_task(wrapped(scope, receive, receive)))
    for _ in range(50):
        await asyncio.sleep(0)
    assert begun == [0, 1]
    assert limited._anonymous._total == 200
    go_on.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 60)
    assert limited._anonymous._total == 0


async def test_a_body_alone_may_have_more_than_the_bound_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INCOMPLETE_BYTES", 1)
    server = Endless("/jobs/")
    await asyncio.wait_for(asgi.application(server.scope, server.receive, server.send), 60)
    assert server.error() == (413, "payload_too_large")


async def test_the_wait_for_a_disconnect_has_no_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream may be open for longer than a body may take."""
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.01)
    messages = [{"type": "http.request", "body": b"{}", "more_body": False}, {"type": "http.disconnect"}]
    seen = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append((await receive())["type"])
        while asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0)
        seen.append((await receive())["type"])

    async def receive() -> Any:
        return messages.pop(0)

    end = asyncio.get_running_loop().time() + 0.02
    await limits.BodyLimit(application)({"type": "http", "path": "/", "headers": []}, receive, receive)
    assert seen == ["http.request", "http.disconnect"]


class Unreadable(io.RawIOBase):
    def readinto(self, buffer: Any) -> int:
        raise AssertionError("the body was read")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("header", "status"),
    [({"CONTENT_LENGTH": str(2**30)}, 413), ({"HTTP_TRANSFER_ENCODING": "chunked"}, 411)],
)
def test_under_wsgi_a_body_is_refused_before_it_is_read(path: str, header: dict[str, str], status: int) -> None:
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": path, "SERVER_NAME": "localhost", "SERVER_PORT": "80"}
    environ |= {"CONTENT_TYPE": "application/json", "wsgi.input": Unreadable(), "wsgi.url_scheme": "http", **header}
    started = []
    content = b"".join(wsgi.application(environ, lambda line, headers: started.append((line, dict(headers)))))
    assert started[0][0].startswith(str(status))
    assert started[0][1]["connection"] == "close"
    assert json.loads(content)["error"]["outcome"] == "not_started"


CHARSETS = [
    "multipart/form-data; boundary=x; charset=zlib",
    "application/x-www-form-urlencoded; charset=undefined",
    "multipart/form-data; boundary=x; charset=idna",
    'application/json; charset="a\0b"',
    "application/json; charset=nonsense",
    "text/plain; charset*=nonsense''x",
]


@pytest.mark.parametrize("path", ["/admin/login/", "/api/jobs"])
@pytest.mark.parametrize("content_type", CHARSETS)
async def test_a_charset_that_is_no_encoding_of_text_is_refused_before_django_reads_it(
    content_type: str, path: str
) -> None:
    server = Endless(path)
    server.scope["headers"] = [(b"host", b"localhost"), (b"content-type", content_type.encode())]
    await asyncio.wait_for(asgi.application(server.scope, server.receive, server.send), 60)
    assert server.error() == (400, "bad_request")
    assert server.read == 0
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": path, "SERVER_NAME": "localhost", "SERVER_PORT": "80"}
    environ |= {"CONTENT_TYPE": content_type, "wsgi.input": Unreadable(), "wsgi.url_scheme": "http"}
    started: list[str] = []
    content = b"".join(wsgi.application(environ, lambda line, headers: started.append(line)))
    assert started == ["400 Bad Request"]
    assert json.loads(content)["error"]["message"].startswith("Content-Type: ")


@pytest.mark.parametrize(
    "name", ["utf-8", "UTF8", "latin-1", "utf-16", "shift_jis", "ISO-8859-15", "ascii", '"utf-8"', ""]
)
def test_a_charset_of_text_is_taken(name: str) -> None:
    assert charset.find_problem(f"application/json; charset={name}") == ""


def test_names_of_encodings_that_python_does_not_have_leave_nothing_in_memory() -> None:
    """Python keeps each name that was looked up: 60 kB of each request without a key."""
    kept = encodings._cache  # type: ignore[attr-defined]
    before = len(kept)
    for number in range(20):
        for name in (f"charset=nonsense{number}", f"charset=utf{'-' * number}--8", f"a*=nonsense{number}''%41"):
            assert charset.find_problem(f"application/json; {name}").startswith("Content-Type: ")
    assert len(kept) == before


@asynccontextmanager
async def served(application: Any) -> AsyncIterator[tuple[int, list[Any]]]:
    """The port of a server with our protocol, and its open connections."""
    config = uvicorn.Config(application, http=http.Protocol, lifespan="off", log_level="critical", access_log=False)
    config.load()
    state = uvicorn.Server(config).server_state
    server = await asyncio.get_running_loop().create_server(
        lambda: http.Protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    async with server:
        yield server.sockets[0].getsockname()[1], state.connections  # type: ignore[misc]


async def test_the_server_ends_connections_that_send_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEADER_SECONDS", 0.1)
    async with served(None) as (port, _):
        for begun in (b"", b"GET / HTTP/1.1\r\nHost: lo"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(begun)
            assert await asyncio.wait_for(reader.read(), 30) == b""
            writer.close()


async def test_the_server_does_not_end_a_connection_whose_request_takes_longer_than_its_headers_may() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        (protocol,) = open_now
        protocol.close_idle()  # as its timer does, which on a busy machine could come before the request
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async with served(application) as (port, open_now):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 30)).endswith(b"ok")
        writer.close()


async def test_the_server_reads_a_body_when_the_application_receives_it() -> None:
    length, begun, wanted = 8 * MiB, asyncio.Event(), asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await wanted.wait()
        read, more = 0, True
        while more:
            message = await receive()
            read, more = read + len(message["body"]), message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": str(read).encode()})

    async with served(application) as (port, connections):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode())
        writer.write(bytes(1000))
        await asyncio.wait_for(begun.wait(), 30)
        (protocol,) = connections
        assert not protocol.transport.is_reading()
        writer.write(bytes(length - 1000))
        wanted.set()
        assert (await asyncio.wait_for(reader.read(), 60)).endswith(f"\r\n{length}\r\n0\r\n\r\n".encode())
        writer.close()


@pytest.mark.parametrize("reset", [False, True])
async def test_an_ended_connection_leaves_nothing_in_memory(reset: bool) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with served(application) as (port, connections):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        (remains,) = map(weakref.ref, connections)
        if reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()
        async with asyncio.timeout(30):
            while connections:
                await asyncio.sleep(0.01)
        gc.collect()
        assert remains() is None


async def test_a_response_is_freed_without_the_garbage_collector() -> None:
    """It runs rarely in a process with many modules, so that what requests leave to it looks like a leak."""
    responses = weakref.WeakSet[Any]()

    class Handler(ASGIHandler):
        async def run_get_response(self, request: Any) -> Any:
            response = await super().run_get_response(request)
            responses.add(response)
            return response

    seen = 0
    async with served(limits.BodyLimit(Handler())) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        gc.disable()
        try:
            writer.write(b"GET /api/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            while await asyncio.wait_for(reader.read(65_536), 60):
                seen += len(responses)
            if django.VERSION >= (6, 0):  # its task group keeps a cycle of its own
                gc.collect()
            async with asyncio.timeout(30):
                while responses:
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()
            writer.close()
    assert seen


async def test_an_application_that_waits_for_the_end_after_its_response_sees_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "LINGER_SECONDS", 0.01)
    seen = asyncio.get_running_loop().create_future()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        seen.set_result((await receive())["type"])

    async with served(limits.BodyLimit(application)) as (port, _):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await asyncio.wait_for(seen, 60) == "http.disconnect"
        writer.close()


def test_the_server_bounds_what_a_connection_buffers() -> None:
    ends = socket.socketpair()
    with ends[0], ends[1]:
        assert ends[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > 2 * http.RECEIVE_BYTES
        http.limit_buffer(SimpleNamespace(get_extra_info={"socket": ends[0]}.get))
        # Linux doubles the value for its own bookkeeping.
        assert ends[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 2 * http.RECEIVE_BYTES
        ends[0].close()
        http.limit_buffer(SimpleNamespace(get_extra_info={"socket": ends[0]}.get))  # closed meanwhile: no error
