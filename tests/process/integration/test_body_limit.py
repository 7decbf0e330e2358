"""The body limit of the site, on every path, before authentication, under ASGI and WSGI."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from snakepit.pools.api import limits
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


async def test_the_server_ends_connections_that_send_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.3)  # longer than the limit: a request that has begun goes on
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    monkeypatch.setattr(http, "HEADER_SECONDS", 0.1)
    config = uvicorn.Config(application, http=http.Protocol, lifespan="off", log_level="critical", access_log=False)
    config.load()
    server = uvicorn.Server(config)
    state, loop = server.server_state, asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: http.Protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    port = listening.sockets[0].getsockname()[1]
    for begun in (b"", b"GET / HTTP/1.1\r\nHost: lo"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert (await asyncio.wait_for(reader.read(), 30)).endswith(b"ok")
    writer.close()
    listening.close()
    await listening.wait_closed()


def test_the_server_bounds_what_a_connection_buffers() -> None:
    ends = socket.socketpair()
    with ends[0], ends[1]:
        assert ends[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > 2 * http.RECEIVE_BYTES
        http.limit_buffer(SimpleNamespace(get_extra_info={"socket": ends[0]}.get))
        # Linux doubles the value for its own bookkeeping.
        assert ends[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 2 * http.RECEIVE_BYTES
        ends[0].close()
        http.limit_buffer(SimpleNamespace(get_extra_info={"socket": ends[0]}.get))  # closed meanwhile: no error
