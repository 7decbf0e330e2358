"""Clients in other languages, against a real broker: generated from the API's descriptions, and Node over gRPC.

The generators and the libraries of the clients come from the npm registry and PyPI, while the broker starts.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from snakepit.pools.client import shared
from snakepit.pools.models import ApiKey
from tests.brokers import ROOT, RunningBroker, broker
from tests.certificates import Authority
from tests.conftest import unavailable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
GENERATED, NODE = ROOT / "tests/generated", ROOT / "examples/node"
FROM_NPM = {"openapi-typescript": "7.13.0", "openapi-fetch": "0.17.0", "typescript": "5.9.3"}
# What its generator and its clients import and the environment of the tests lacks, or has in a version that it refuses.
FROM_PYPI = ["openapi-python-client==0.29.1", "typer==0.27.0", "ruamel.yaml==0.18.16", "jinja2", "markupsafe",
             "shellingham", "attrs"]  # fmt: skip
# Rights to the calls and the status of one pool.
RIGHTS = {"scopes": ["run", "view"]}


@dataclass(frozen=True)
class Tools:
    home: Path

    def run(self, *words: str | Path, **environment: str) -> str:
        """The output of a program, whose error is in the failure of the test."""
        done = self._done(words, environment)
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def node(self, *words: str, **environment: str) -> tuple[int, list[str], str]:
        """Exit code, lines and errors of the example for Node."""
        done = self._done(("node", "client.mjs", *words), environment)
        return done.returncode, done.stdout.splitlines(), done.stderr

    def _done(self, words: Sequence[str | Path], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(str, words)), cwd=self.home, env={**os.environ, **environment},
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip

    def from_npm(self) -> None:
        package = json.loads((NODE / "package.json").read_text())
        package["dependencies"] |= FROM_NPM
        (self.home / "package.json").write_text(json.dumps(package))
        self.run("npm", "install", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error")

    def from_pypi(self) -> None:
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps")
        self.run(*pip, "--target", self.home / "python", *FROM_PYPI)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """LISTEN_CONFIG of the broker, and the variables of a client over the network."""
    directory = tmp_path_factory.mktemp("certificates")
    authority = Authority(directory)
    (cert, key), (own, private) = authority.issue("server"), authority.issue("nameless")
    keys = directory / "keys.json"
    keys.write_text(json.dumps({"snk_node": RIGHTS, "snk_view": {"scopes": ["view"]}}))
    config = {"tls": {"cert": cert, "key": key, "client_ca": str(authority.path)}, "keys": str(keys)}
    client = {"CA": str(authority.path), "CERT": own, "KEY": private}
    return {"LISTEN_CONFIG": json.dumps(config), **{f"SNAKEPIT_TLS_{name}": path for name, path in client.items()}}


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    if not (shutil.which("node") and shutil.which("npm")):
        unavailable("there is no node or npm")
    home = tmp_path_factory.mktemp("clients")
    for path in (*GENERATED.iterdir(), NODE / "client.mjs"):
        if path.is_file():
            shutil.copy(path, home)
    found = Tools(home)
    with ThreadPoolExecutor(2) as together:
        for one in [together.submit(found.from_npm), together.submit(found.from_pypi)]:
            one.result()
    return found


@pytest.fixture(scope="module")
def node(tls: dict[str, str]) -> Iterator[RunningBroker]:
    with broker({"typed": {"size": 1, "adapter": "typed"}}, env={**os.environ, **tls}) as running:
        running.ready("typed")
        yield running


@pytest.fixture
def site(
    live_server: Any, node: RunningBroker, django_user_model: Any, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> tuple[str, str]:
    """The URL of a site whose calls go to the broker, and a key."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    monkeypatch.setattr(shared, "client", lambda: node.client)
    owner = django_user_model.objects.create(username="ada", is_superuser=True)
    return live_server.url, ApiKey.create(name="test", owner=owner, scopes=RIGHTS["scopes"])[1]


@pytest.fixture
def described(tools: Tools, site: tuple[str, str]) -> Callable[[str, str], Path]:
    def save(path: str, name: str) -> Path:
        url, key = site
        with urlopen(Request(url + path, headers={"Authorization": f"Bearer {key}"}), timeout=60) as answer:
            (tools.home / name).write_bytes(answer.read())
        return tools.home / name

    return save


def test_a_client_from_openapi_typescript_is_compiled_and_run(
    tools: Tools, site: tuple[str, str], described: Callable[[str, str], Path]
) -> None:
    binaries = tools.home / "node_modules/.bin"
    for path, name in {"/api/pools/typed/openapi.json": "typed", "/api/openapi.json": "site"}.items():
        tools.run(binaries / "openapi-typescript", described(path, f"{name}.json"), "-o", f"{name}.d.ts")
    options = ("--strict", "--skipLibCheck", "--target", "es2022", "--lib", "es2022,dom,dom.iterable")
    tools.run(binaries / "tsc", *options, "--module", "nodenext", "client.ts")
    url, key = site
    assert json.loads(tools.run("node", "client.js", url, f"Bearer {key}")) == {
        "label": "tea",
        "price": "1.10",
        "score": 0.5,
        "refused": "bad_arguments",
        "failed": [500, "KeyError: 'region'"],
        "lines": ["one"],
        "picture": "R05Q",
        "told": [["progress"], ["chunk", 1, ""], ["chunk", 2, "two"], ["result"]],
        "ready": 1,
    }


def test_a_client_from_openapi_python_client_is_run(
    tools: Tools, site: tuple[str, str], described: Callable[[str, str], Path]
) -> None:
    (tools.home / "config.yml").write_text("post_hooks: []\n")
    given = ("--path", described("/api/pools/typed/openapi.json", "typed.json"), "--config", "config.yml")
    words = (sys.executable, "-c", "from openapi_python_client.cli import app; app()", "generate", "--fail-on-warning")
    path = str(tools.home / "python")
    tools.run(*words, *given, "--meta", "none", "--output-path", "typed_client", PYTHONPATH=path)
    url, key = site
    assert json.loads(tools.run(sys.executable, "client_of_python.py", url, key, PYTHONPATH=path)) == {
        "label": "tea",
        "score": 0.5,
        "found": "2026-01-02T00:00:00+00:00",
        "price": "1.10",
        "worker": "typed-",
        "lines": [1, 2],
        "failed": [500, "adapter_error"],
        "picture": "R05Q",
    }


def test_the_node_example_calls_and_streams_over_mutual_tls(
    tools: Tools, node: RunningBroker, tls: dict[str, str]
) -> None:
    variables = {**tls, "SNAKEPIT_TOKEN": "snk_node", "SNAKEPIT_PROTO": str(ROOT / "proto")}
    address = node.status().node.listeners[0].address.replace("127.0.0.1", "localhost")  # Node warns of numbers

    def run(*words: str, **more: str) -> tuple[int, list[str], str]:
        return tools.node(*words, **{**variables, **more})

    lines = '{"lines": [{"number": 1}, {"number": 2, "text": "two"}]}'
    assert run("--stream", address, "typed", "watch", lines) == (
        0, ['{"number":1}', '{"number":2,"text":"two"}'], "",
    )  # fmt: skip
    assert run(address, "typed", "picture", '{"data": "UE5H"}') == (0, ["R05Q"], "")
    code, out, error = run(address, "typed", "fail")
    assert (code, out) == (1, [])
    assert error.startswith("adapter_error (failed): KeyError: 'region'")
    assert run(address, "typed", "fail", SNAKEPIT_TOKEN="snk_view")[2].startswith("permission_denied (not_started): ")
