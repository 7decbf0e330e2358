"""Bodies and results over REST that are not JSON, through real workers: bytes, arrays and tables."""

from __future__ import annotations

import asyncio
import gc
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.asgi import get_asgi_application
from django.test import Client

from snakepit.pools.api.binary_body import ARROW, FORM, NPY, RAW
from snakepit.pools.client import shared
from tests.brokers import RunningBroker, broker
from tests.large import memory_files
from tests.process.integration.test_calls import form
from tests.process.integration.test_key_requests import PATIENCE, scope

np = pytest.importorskip("numpy")
MIB = 2**20
URL = "/api/pools/large/commands/"


@pytest.fixture(scope="module")
def node() -> Iterator[RunningBroker]:
    with broker({"large": {"adapter": "large", "size": 1, "max_payload": MIB, "max_buffer": 2**28}}) as running:
        running.ready("large")
        yield running


@pytest.fixture
def web(node: RunningBroker, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr(shared, "client", lambda: node.client)
    settings.SNAKEPIT = {**settings.SNAKEPIT, "MAX_BODY": 2**28}


@pytest.fixture
def ask(web: None, client: Client, make_key: Callable[..., str]) -> Callable[..., Any]:
    """Call a command with a body; the whole content of the answer stands in `body`."""
    key = make_key()

    def send(command: str, body: Any, kind: str, accept: str = "*/*", query: str = "?argument=value") -> Any:
        headers = {"Authorization": key, "Accept": accept}
        answer = client.post(URL + command + query, data=body, content_type=kind, headers=headers)
        answer.body = answer.getvalue()
        return answer

    return send


def npy_of(array: Any) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


@pytest.mark.parametrize("size", [1000, 300_000])
def test_bytes_go_in_and_out_as_they_are(ask: Any, size: int) -> None:
    data = os.urandom(size)
    answer = ask("echo", data, RAW, accept=RAW)
    assert (answer.status_code, answer["Content-Type"], answer.body) == (200, RAW, data)
    assert answer["X-Snakepit-Worker"].startswith("large-")
    assert ask("total", data, RAW).json()["result"] == ["bytes", size]


@pytest.mark.parametrize("shape", [(3, 2), (300, 200)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_goes_in_and_out_as_a_file_of_numpy(ask: Any, shape: tuple[int, int], order: Any) -> None:
    array = np.arange(shape[0] * shape[1], dtype="<f8").reshape(shape, order=order)
    answer = ask("doubled", npy_of(array), NPY, accept=f"{NPY}, application/json")
    assert (answer.status_code, answer["Content-Type"]) == (200, NPY)
    assert answer.get("Content-Length", str(len(answer.body))) == str(len(answer.body))
    back = np.load(io.BytesIO(answer.body))
    assert back.dtype == array.dtype
    assert (back == array * 2).all()


@pytest.mark.parametrize("rows", [10, 100_000])
def test_a_table_goes_in_and_out_as_an_arrow_stream(ask: Any, rows: int) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    ipc = pytest.importorskip("pyarrow.ipc")
    table = pyarrow.table({"n": list(range(rows)), "text": ["x"] * rows})
    sink = pyarrow.BufferOutputStream()
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    body = sink.getvalue().to_pybytes()
    answer = ask("echo", body, ARROW, accept=ARROW)
    assert (answer.status_code, answer["Content-Type"]) == (200, ARROW)
    assert ipc.open_stream(answer.body).read_all() == table
    for cut in (body[:100], body[: len(body) // 2], b"x"):
        refused = ask("echo", cut, ARROW)
        assert refused.status_code == 422
        assert refused.json()["error"]["details"]["arguments"].keys() == {"value"}


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_form_has_files_of_several_types(ask: Any, size: int) -> None:
    array = np.ones(size)
    part = f'value; filename="a.npy"\r\nContent-Type: {NPY}'
    head = f"--x\r\nContent-Disposition: form-data; name={part}\r\n\r\n".encode()
    body = head + npy_of(array) + b"\r\n" + form(("arguments", b"{}"))
    answer = ask("total", body, f"{FORM}; boundary=x", query="")
    assert answer.json()["result"] == ["ndarray", float(size)]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (npy_of(np.ones(40_000))[:-1], 422, "value: is no .npy file: the array has 319999 bytes"),
        (b"no array", 422, "value: is no .npy file: it does not begin as a .npy file"),
        (
            b"\x93NUMPY\x01\0\x40\0{'descr': '|O', 'fortran_order': False, 'shape': (1,)}          ",
            422,
            "Python objects",
        ),
    ],
)
def test_a_file_of_numpy_that_does_not_fit_is_refused(ask: Any, body: bytes, status: int, words: str) -> None:
    answer = ask("echo", body, NPY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, "bad_arguments")
    assert words in answer.json()["error"]["message"]


def test_a_result_without_the_accepted_type_is_json(ask: Any) -> None:
    answer = ask("total", b"abc", RAW, accept=f"{NPY}, {RAW}")
    assert (answer["Content-Type"], answer.json()["result"]) == ("application/json", ["bytes", 3])
    array = ask("echo", npy_of(np.array([1.5])), NPY, accept=RAW)
    assert (array["Content-Type"], array.json()["result"]) == ("application/json", [1.5])
    large = ask("echo", npy_of(np.ones(900_000, "M8[s]")), NPY, accept=RAW)
    assert large.json()["error"]["code"] == "result_too_large"
    assert "accept the binary type" in large.json()["error"]["message"]


def test_an_error_is_json_for_every_accepted_type(ask: Any) -> None:
    answer = ask("no_such_command", b"abc", RAW, accept=RAW)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "command_unknown")


@pytest.mark.django_db(transaction=True)
async def test_a_large_body_and_result_are_never_whole_in_the_web_process(web: None, amake_key: Any) -> None:
    size = 100 * MIB
    head = npy_of(np.zeros(0))[:128].replace(b"(0,)", str((size // 8,)).encode()).rstrip(b" \n")
    head = head.ljust(127) + b"\n"
    given = scope(await amake_key(), URL + "doubled", **{"content-type": NPY, "accept": NPY})
    given["headers"].append((b"content-length", str(len(head) + size).encode()))
    given["query_string"] = b"argument=value"
    pieces = [head, *[bytes(MIB)] * (size // MIB)]
    gc.collect()
    before = most = own_memory()
    sent: list[Any] = []
    received = 0

    async def receive() -> dict[str, Any]:
        nonlocal most
        most = max(most, own_memory())
        if not pieces:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: Any) -> None:
        nonlocal most, received
        most = max(most, own_memory())
        received += len(message.get("body", b""))
        if message["type"] == "http.response.start":
            sent.append((message["status"], dict(message["headers"])))

    await asyncio.wait_for(get_asgi_application()(given, receive, send), PATIENCE)
    ((status, headers),) = sent
    assert (status, int(headers[b"Content-Length"])) == (200, received)
    assert received == len(head) + size
    assert most - before < 24 * MIB
    gc.collect()
    assert memory_files(os.getpid()) == 0


def own_memory() -> int:
    """Bytes of this process's memory, mapped files included."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
