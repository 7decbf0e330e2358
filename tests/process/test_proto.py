"""The committed stubs are what the .proto files say."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ("snakepit/workers/wire/worker.proto", "snakepit/pools/wire/broker.proto")
ENDINGS = ("_pb2.py", "_pb2.pyi", "_grpc.py")
# Only a broker has stock grpcio for a client; workers talk to their broker alone.
FOR_GRPCIO = "snakepit/pools/wire/broker.proto"
FILES = [name.removesuffix(".proto") + ending for name in PROTOS for ending in ENDINGS]
FILES += [FOR_GRPCIO.removesuffix(".proto") + "_pb2_grpc.py"]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stubs")
    # The same commands as `make proto`, into another directory.
    plugin = Path(sysconfig.get_path("scripts")) / "protoc-gen-grpclib_python"
    ours = [
        f"--plugin={plugin.name}={plugin}",
        f"--python_out={out}",
        f"--pyi_out={out}",
        f"--grpclib_python_out={out}",
    ]
    generate(*ours, *(f"proto/{name}" for name in PROTOS))
    generate(f"--grpc_python_out={out}", f"proto/{FOR_GRPCIO}")
    return out


def generate(*arguments: str) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "proto", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", FILES)
def test_a_committed_stub_is_fresh(generated: Path, name: str) -> None:
    assert (ROOT / name).read_text() == (generated / name).read_text(), f"{name} is stale: run `make proto`"


def test_every_proto_file_is_generated() -> None:
    assert {str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto")} == set(PROTOS)


def test_no_stub_is_without_its_proto() -> None:
    folders = [ROOT / "snakepit" / package / "wire" for package in ("workers", "pools")]
    stubs = [path for folder in folders for path in folder.glob("*.py*") if path.stem != "__init__"]
    assert {str(path.relative_to(ROOT)) for path in stubs} == set(FILES)


def test_the_stub_for_grpcio_takes_the_lowest_version_of_the_extra() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["grpc"]
    text = (ROOT / "snakepit/pools/wire/broker_pb2_grpc.py").read_text()
    (version,) = re.findall(r"GRPC_GENERATED_VERSION = '([\d.]+)'", text)
    assert extra == [f"grpcio>={version.removesuffix('.0')},<2"]


def test_the_stubs_load_with_the_oldest_protobuf_that_is_allowed() -> None:
    # protobuf refuses generated code that is newer than itself; pyproject.toml allows it from 6.31.1 on.
    from google.protobuf.runtime_version import Domain  # noqa: F401  (proves that the check below is the real one)

    for name in PROTOS:
        text = (ROOT / (name.removesuffix(".proto") + "_pb2.py")).read_text()
        assert "_runtime_version.Domain.PUBLIC,\n    6,\n    31,\n    1," in text
