"""Calling a command over REST: good answers, bad input, streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.test import AsyncClient, Client

from snakepit.pools.api.limits import BodyLimit
from snakepit.pools.broker import errors
from snakepit.pools.client import Chunk
from tests.process.integration.fakes import FakeClient, unreachable

pytestmark = pytest.mark.django_db
URL = "/api/pools/digits/commands/classify"
MiB = 2**20


@pytest.fixture
def post(client: Client, broker: FakeClient, make_key: Callable[..., str]) -> Callable[..., Any]:
    key = make_key()

    def send(body: Any = b"", url: str = URL, **headers: str) -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body)
        headers = {"Authorization": key, **headers}
        return client.post(url, data=content, content_type="application/json", headers=headers)

    return send


def refused(response: Any) -> tuple[int, str, str]:
    error = response.json()["error"]
    assert set(response.json()) == {"error"}
    assert set(error) == {"code", "message", "outcome", "details"}
    return response.status_code, error["code"], error["outcome"]


def test_a_call_answers_with_its_result_and_where_its_time_went(post: Any, broker: FakeClient) -> None:
    response = post({"pixels": [1, 2]}, f"{URL}?timeout=2.5&priority=-3&affinity=ada")
    assert response.status_code == 200
    call = {"id": "call-1", "worker": "digits-1", "queued_ms": 1.5, "run_ms": 250.0}
    assert response.json() == {"result": 7, "call": call}
    assert broker.calls == [("digits", "classify", {"pixels": [1, 2]}, 2.5, -3)]
    assert broker.keys == ["ada"]


def test_an_empty_body_means_no_arguments(post: Any, broker: FakeClient) -> None:
    assert post(b"").status_code == 200
    assert broker.calls == [("digits", "classify", {}, None, 0)]


def test_bytes_travel_both_ways(post: Any, broker: FakeClient) -> None:
    broker.answers["echo"] = lambda arguments: {"nested": [arguments["image"]]}
    response = post({"image": {"$bytes": "UE5H"}}, "/api/pools/digits/commands/echo")
    assert broker.calls[0][2] == {"image": b"PNG"}
    assert response.json()["result"] == {"nested": [{"$bytes": "UE5H"}]}


def test_a_result_of_bytes_is_raw_on_request(post: Any, broker: FakeClient) -> None:
    broker.answers["echo"] = b"\x00\xffraw"
    url = "/api/pools/digits/commands/echo"
    response = post({}, url, Accept="application/octet-stream")
    assert (response.content, response["Content-Type"]) == (b"\x00\xffraw", "application/octet-stream")
    assert response["X-Snakepit-Worker"] == "digits-1"
    assert post({}, url).json()["result"] == {"$bytes": "AP9yYXc="}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "is not JSON"),
        (b"hello", "is not JSON"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"[1, 2]", "must be a JSON object of arguments, not an array"),
        (b"null", "not null"),
        (b'{"x": NaN}', "contains NaN"),
        (b'{"x": 1, "x": 2}', "contains the key 'x' twice"),
        (b'{"x": [{"y": 1, "z": 0, "y": 1}]}', "contains the key 'y' twice"),
        (b'{"x": -Infinity}', "contains -Infinity"),
        (b'{"x": 1e999}', "outside the range of a float"),
        (b'{"x": "a\\u0000b"}', "contains the character NUL"),
        (b'{"a\\u0000b": 1}', "contains the character NUL"),
        (b'{"x": ["\\ud800"]}', "contains half of a surrogate pair"),
        (b'{"x": ' + b"9" * 5000 + b"}", "more than 4300 digits"),
        (b'{"x":' * 65 + b"1" + b"}" * 65, "nested deeper than 64 levels"),
        (b"[" * 500 + b"]" * 500, "nested deeper than 64 levels"),
        (b"[" * 100_000 + b"]" * 100_000, "nested deeper than 64 levels"),
        (b'{"x":' * 100_000, "nested deeper than 64 levels"),
    ],
)
def test_a_body_that_is_no_strict_json_object_is_refused(
    post: Any, broker: FakeClient, body: bytes, words: str
) -> None:
    response = post(body)
    assert refused(response) == (400, "bad_request", "not_started")
    assert words in response.json()["error"]["message"]
    assert broker.calls == []


def test_sixty_four_levels_are_not_too_deep(post: Any) -> None:
    assert post(b'{"x":' * 64 + b"1" + b"}" * 64).status_code == 200


def test_a_pair_of_surrogates_is_a_character(post: Any, broker: FakeClient) -> None:
    assert post(b'{"x": "\\ud83d\\ude00"}').status_code == 200
    assert broker.calls[0][2] == {"x": "\U0001f600"}


def test_a_body_of_five_megabytes_is_refused_in_the_shape(post: Any, broker: FakeClient) -> None:
    response = post(b'{"x": "' + b"a" * 5 * MiB + b'"}')
    assert refused(response) == (413, "payload_too_large", "not_started")
    assert broker.calls == []


def test_another_content_type_is_refused_with_the_fix(client: Client, broker: FakeClient, make_key: Any) -> None:
    kind = "application/x-www-form-urlencoded"
    response = client.post(URL, b"{}", content_type=kind, headers={"Authorization": make_key()})
    assert refused(response) == (400, "bad_request", "not_started")
    assert "add -H 'Content-Type: application/json'" in response.json()["error"]["message"]


@pytest.mark.parametrize("query", ["timeout=0", "timeout=-1", "timeout=nan", "timeout=inf", "timeout=x",
                                   "timeout=9999999",
                                   "affinity=" + "x" * 201,
                                   "priority=101", "priority=1.5", "stream=perhaps"])  # fmt: skip
def test_a_wrong_query_is_refused_by_name(post: Any, broker: FakeClient, query: str) -> None:
    response = post({}, f"{URL}?{query}")
    assert refused(response) == (400, "bad_request", "not_started")
    assert query.split("=")[0] in response.json()["error"]["message"]
    assert broker.calls == []


def test_bytes_that_are_not_base64_are_bad_arguments(post: Any) -> None:
    response = post({"image": {"$bytes": "!"}})
    assert refused(response) == (422, "bad_arguments", "not_started")
    assert response.json()["error"]["details"] == {"argument": "image"}


@pytest.mark.parametrize("error", errors.ERRORS.values(), ids=errors.ERRORS)
def test_every_error_of_the_broker_keeps_its_code_and_status(post: Any, broker: FakeClient, error: Any) -> None:
    broker.error = error("Because.", details={"n": 1})
    response = post({})
    if error is errors.Unauthenticated:
        # The broker refused this server, not the caller, whose key is good.
        assert refused(response) == (503, "broker_unreachable", "not_started")
        return
    assert refused(response) == (error.http_status, error.code, broker.error.outcome)
    assert response.json()["error"]["message"] == "Because."
    assert response.json()["error"]["details"] == {"n": 1}


def test_unknown_pools_and_commands_are_not_found(post: Any) -> None:
    assert refused(post({}, "/api/pools/other/commands/classify"))[:2] == (404, "pool_unknown")
    assert refused(post({}, "/api/pools/digits/commands/other"))[:2] == (404, "command_unknown")


def test_a_full_queue_responds_with_retry_after(post: Any, broker: FakeClient) -> None:
    broker.error = errors.QueueFull("3 of 3 places are taken", retry_after=0.4)
    response = post({})
    assert refused(response)[:2] == (429, "queue_full")
    assert response["Retry-After"] == "1"


def test_an_unreachable_broker_has_its_own_error(post: Any, broker: FakeClient) -> None:
    broker.error = unreachable()
    assert refused(post({})) == (503, "broker_unreachable", "not_started")


def test_a_bug_of_ours_shows_nothing_of_our_insides(
    post: Any, broker: FakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(arguments: Any) -> None:
        raise RuntimeError("the secret path /srv/x")

    broker.answers["classify"] = fail
    response = post({})
    assert refused(response) == (500, "internal", "unknown")
    assert "secret" not in response.content.decode()
    assert "the secret path" in caplog.text


def test_a_result_with_nan_is_an_error_and_not_broken_json(post: Any, broker: FakeClient) -> None:
    broker.answers["classify"] = float("nan")
    assert refused(post({})) == (500, "internal", "failed")


def frames_of(content: bytes) -> list[tuple[str, str, Any]]:
    found = []
    for frame in content.decode().split("\n\n"):
        if frame and not frame.startswith(":"):
            lines = dict(line.split(": ", 1) for line in frame.split("\n"))
            found.append((lines["id"], lines["event"], json.loads(lines["data"])))
    return found


EXPECTED = [
    ("1", "progress", {"fraction": 0.5, "message": "half"}),
    ("2", "log", {"message": "a line"}),
    ("3", "chunk", {"n": 1}),
    ("4", "chunk", {"n": 2}),
]


@pytest.mark.parametrize("query", ["", "?stream=true"])
def test_a_stream_works_under_wsgi(post: Any, broker: FakeClient, query: str) -> None:
    headers = {} if query else {"Accept": "text/event-stream"}
    response = post({}, URL + query, **headers)
    assert response["Content-Type"].startswith("text/event-stream")
    assert not response.is_async
    found = frames_of(b"".join(response.streaming_content))
    assert found[:4] == EXPECTED
    assert found[4][:2] == ("5", "result")
    assert found[4][2]["call"]["worker"] == "digits-1"
    assert broker.streams[0].closed.is_set()


def test_leaving_a_stream_under_wsgi_closes_it(post: Any, broker: FakeClient) -> None:
    response = post({}, URL + "?stream=true")
    content = iter(response)
    next(content)
    response.close()
    assert broker.streams[0].closed.is_set()


def test_an_error_in_a_stream_is_its_last_event(post: Any, broker: FakeClient) -> None:
    broker.script = [Chunk(1), errors.WorkerLost("it was killed")]
    found = frames_of(b"".join(post({}, URL + "?stream=true").streaming_content))
    assert [name for _, name, _ in found] == ["chunk", "error"]
    assert found[1][2]["error"]["code"] == "worker_lost"


def test_a_bug_in_a_stream_is_an_error_event(post: Any, broker: FakeClient, caplog: pytest.LogCaptureFixture) -> None:
    broker.script = [Chunk(1), RuntimeError("secret")]
    found = frames_of(b"".join(post({}, URL + "?stream=true").streaming_content))
    assert found[1][2]["error"]["code"] == "internal"
    assert "secret" in caplog.text


@pytest.mark.django_db(transaction=True)
async def test_a_stream_works_under_asgi_with_heartbeats(
    async_client: AsyncClient, broker: FakeClient, amake_key: Any, settings: Any
) -> None:
    settings.SNAKEPIT = {**settings.SNAKEPIT, "STREAM_HEARTBEAT": 0.01}
    go_on = asyncio.Event()
    broker.script = [Chunk("first"), go_on.wait, Chunk("second")]
    key = await amake_key()
    headers = {"Authorization": key, "Accept": "text/event-stream"}
    response = await async_client.post(URL, b"{}", content_type="application/json", headers=headers)
    assert response.is_async
    parts = aiter(response.streaming_content)
    assert b"first" in await anext(parts)
    assert await anext(parts) == b": alive\n\n"
    go_on.set()
    rest = b"".join([part async for part in parts])
    assert b"second" in rest
    assert broker.streams[0].closed.is_set()


def asgi(key: str, *headers: tuple[bytes, bytes]) -> ApplicationCommunicator:
    """A POST of the call straight to the ASGI application, whose body the test sends piece by piece."""
    given = [
        (b"authorization", key.encode()),
        (b"host", b"localhost"),
        (b"content-type", b"application/json"),
        *headers,
    ]
    scope = {
        "type": "http",
        "method": "POST",
        "path": URL,
        "headers": given,
        "query_string": b"",
        "http_version": "1.1",
    }
    return ApplicationCommunicator(get_asgi_application(), scope)


@pytest.mark.django_db(transaction=True)
async def test_a_client_that_leaves_under_asgi_cancels_its_call(broker: FakeClient, amake_key: Any) -> None:
    broker.script = [Chunk("first"), asyncio.Event().wait]
    server = asgi(await amake_key(), (b"accept", b"text/event-stream"))
    await server.send_input({"type": "http.request", "body": b"{}"})
    assert (await server.receive_output(60))["status"] == 200
    assert b"first" in (await server.receive_output(60))["body"]
    await server.send_input({"type": "http.disconnect"})
    await asyncio.wait_for(broker.streams[0].closed.wait(), 60)
    await server.wait(60)


@pytest.mark.django_db(transaction=True)
async def test_a_large_body_of_unannounced_length_is_refused(broker: FakeClient, amake_key: Any) -> None:
    server = asgi(await amake_key())
    await server.send_input({"type": "http.request", "body": b" " * MiB, "more_body": True})
    await server.send_input({"type": "http.request", "body": b" "})
    assert (await server.receive_output(60))["status"] == 413
    assert json.loads((await server.receive_output(60))["body"])["error"]["code"] == "payload_too_large"
    assert broker.calls == []
    await server.wait(60)


@pytest.mark.parametrize("announced", [True, False])
async def test_under_asgi_a_large_body_is_refused_before_it_is_stored(announced: bool) -> None:
    read = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal read
        while read < 4 * MiB and (message := await receive()).get("more_body"):
            read += len(message["body"])

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"a" * 2**18, "more_body": True}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-length", b"99999999")] if announced else []
    scope = {"type": "http", "path": URL, "headers": headers}
    await BodyLimit(application, "/api/")(scope, receive, send)
    assert read <= MiB
    assert sent[0]["status"] == 413
    assert json.loads(sent[1]["body"])["error"]["code"] == "payload_too_large"


FORM = "multipart/form-data; boundary=x"


def form(*parts: tuple[str, bytes]) -> bytes:
    """Each part: what follows `name=`, and the content."""
    head = b"--x\r\nContent-Disposition: form-data; name=%s\r\n\r\n%s\r\n"
    return b"".join(head % (name.encode(), content) for name, content in parts) + b"--x--\r\n"


@pytest.fixture
def send(client: Client, broker: FakeClient, make_key: Callable[..., str]) -> Callable[..., Any]:
    headers = {"Authorization": make_key()}
    return lambda body, kind, url=URL: client.post(url, data=body, content_type=kind, headers=headers)


def test_a_binary_body_is_the_argument_that_the_url_names(send: Any, broker: FakeClient) -> None:
    assert send(b"\0PNG\xff", "application/octet-stream", f"{URL}?argument=image").status_code == 200
    assert broker.calls[0][2] == {"image": b"\0PNG\xff"}


def test_the_files_of_a_form_are_arguments_and_one_field_has_the_others(send: Any, broker: FakeClient) -> None:
    body = form(('image; filename="a.png"', b"\0PNG\xff"), ("arguments", b'{"top": 3, "mask": {"$bytes": "UE5H"}}'))
    assert send(body, FORM).status_code == 200
    assert broker.calls[0][2] == {"image": b"\0PNG\xff", "top": 3, "mask": b"PNG"}


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=\xe9"])
def test_a_form_of_a_session_that_cannot_be_read_is_refused(
    broker: FakeClient, django_user_model: Any, settings: Any, kind: str
) -> None:
    client, token = Client(enforce_csrf_checks=True), "x" * 32
    client.force_login(django_user_model.objects.create_superuser("ada"))
    client.cookies[settings.CSRF_COOKIE_NAME] = token
    for url in (URL, "/api/jobs"):
        answer = client.post(url, b"x", content_type=kind, headers={"X-CSRFToken": token})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")


@pytest.mark.parametrize("size", [3, 3 * MiB])
def test_a_session_sends_a_form_with_its_csrf_token_in_the_header_or_in_a_field(
    broker: FakeClient, django_user_model: Any, settings: Any, size: int
) -> None:
    """The check of the token reads the form before the view does."""
    settings.SNAKEPIT = {**settings.SNAKEPIT, "MAX_BODY": 2**23}
    client, token = Client(enforce_csrf_checks=True), "x" * 32
    client.force_login(django_user_model.objects.create_superuser("ada"))
    client.cookies[settings.CSRF_COOKIE_NAME] = token
    for field, headers in ((b"", {"X-CSRFToken": token}), (token.encode(), {})):
        parts = [('a; filename="a"', b"\0" * size), ("arguments", b'{"b": 1}')]
        body = form(*parts, *([("csrfmiddlewaretoken", field)] if field else []))
        answer = client.post("/api/pools/digits/commands/echo", body, content_type=FORM, headers=headers)
        assert answer.status_code == 200, answer.content
    for call in broker.calls:
        value = call[2]["a"]
        assert call[2]["b"] == 1
        assert (value["$bytes"]["$buffer"][2] if size > MiB else len(value)) == size


@pytest.mark.parametrize(
    ("body", "kind", "query", "status", "words"),
    [
        (b"x", "application/octet-stream", "", 400, "name the parameter that gets the body"),
        (b"{}", "application/json", "?argument=image", 400, "is for a body of application/octet-stream"),
        (b"x" * (MiB + 1), "application/octet-stream", "?argument=image", 413, "MAX_BODY"),
        (form(('a; filename="a"', b"x" * (MiB + 1))), FORM, "", 413, "MAX_BODY"),
        (form(("top", b"3")), FORM, "", 400, "top: is a field of text"),
        (form(("arguments", b"[]")), FORM, "", 400, "must be a JSON object"),
        (form(('a; filename="a"', b"1"), ("arguments", b'{"a": 1}')), FORM, "", 422, "a: is given twice"),
        (form(('a; filename="a"', b"1"), ('a; filename="b"', b"2")), FORM, "", 422, "a: is given twice"),
        (b"nothing", "multipart/form-data", "", 400, "The body is not a form"),
    ],
)
def test_a_binary_body_that_does_not_fit_is_refused(
    send: Any, broker: FakeClient, body: bytes, kind: str, query: str, status: int, words: str
) -> None:
    response = send(body, kind, URL + query)
    assert response.status_code == status
    assert words in response.json()["error"]["message"]
    assert not broker.calls
