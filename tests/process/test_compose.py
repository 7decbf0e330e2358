"""docker-compose.yml, the Dockerfile and the systemd unit: valid, and with the properties that production leans on."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
import redis
import yaml
from uvicorn.main import main as uvicorn_command

from tests import services
from tests.conftest import unavailable

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
SERVICES = ("web", "broker", "celery", "beat", "redis", "postgres")
CLIENTS_OF_THE_BROKER = ("web", "celery", "broker", "beat")


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load(COMPOSE.read_text())


def test_the_compose_file_fits_the_compose_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_schema_check_can_fail(tmp_path: Path) -> None:
    broken = tmp_path / "docker-compose.yml"
    broken.write_text("services:\n  web:\n    imag: nothing\n")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(broken)]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 1


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_reports_its_health_and_stops(compose: dict, name: str) -> None:
    service = compose["services"][name]
    assert service["healthcheck"]["test"]
    assert service["init"] is True, "without an init, no process reaps the children of a killed one"
    assert re.fullmatch(r"\d+s", service["stop_grace_period"])


@pytest.mark.parametrize("name", [*SERVICES, "migrate"])
def test_no_service_runs_as_root(compose: dict, name: str) -> None:
    user = compose["services"][name]["user"]
    assert int(user.split(":")[0]) > 0


@pytest.mark.parametrize("name", CLIENTS_OF_THE_BROKER)
def test_the_broker_and_its_clients_share_the_runtime_directory(compose: dict, name: str) -> None:
    service = compose["services"][name]
    assert "runtime:/run/snakepit" in service["volumes"]
    assert service["environment"]["SNAKEPIT_RUNTIME_DIR"] == "/run/snakepit"


def test_the_runtime_directory_is_on_memory_and_private(compose: dict) -> None:
    options = compose["volumes"]["runtime"]["driver_opts"]
    assert options["type"] == "tmpfs"
    assert "mode=0700" in options["o"]
    uid = compose["services"]["broker"]["user"].split(":")[0]
    assert f"uid={uid}" in options["o"]


def test_every_service_runs_without_privileges_on_a_file_system_that_it_cannot_write(compose: dict) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name


def test_every_service_and_every_file_system_in_memory_has_a_limit(compose: dict) -> None:
    for name, service in compose["services"].items():
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
        assert 0 < service["pids_limit"] <= 4096, name
        assert all(re.search(r"\bsize=\d+m\b", one) for one in service.get("tmpfs", ())), name
    on_memory = [volume for volume in compose["volumes"].values() if volume]
    assert all(re.search(r"\bsize=\d+m\b", volume["driver_opts"]["o"]) for volume in on_memory)
    assert "maxmemory 384mb" in compose["services"]["redis"]["command"][-1]


def test_the_web_servers_bound_their_connections_and_believe_no_header(compose: dict) -> None:
    image = next(words for words in instructions() if words[0] == "CMD")[1:]
    for command in (compose["services"]["web"]["command"], [word.strip("[],") for word in image]):
        assert "--no-proxy-headers" in command
        assert 0 < int(command[command.index("--limit-concurrency") + 1]) <= 10_000
        assert int(command[command.index("--timeout-keep-alive") + 1]) <= 30
        given = [word for word in command[1:] if word != "snakepit.site.asgi:application"]
        uvicorn_command.make_context("uvicorn", ["snakepit.site.asgi:application", *given])


def test_the_configuration_of_gunicorn_is_valid(tmp_path: Path) -> None:
    values = {}
    exec((ROOT / "deploy" / "gunicorn.conf.py").read_text(), values)
    assert values["forwarded_allow_ips"] == ""
    assert values["worker_connections"] > 0
    assert values["workers"] * values["threads"] <= values["workers"] * values["worker_connections"]


def test_the_example_of_nginx_bounds_each_client_and_sets_the_headers_that_the_site_trusts() -> None:
    text = re.sub(r"#.*", "", (ROOT / "deploy" / "nginx.conf").read_text())
    assert text.count("{") == text.count("}")
    given = dict(re.findall(r"^\s*(?:proxy_set_header\s+)?([\w-]+)\s+([^;{]*);", text, re.M))
    assert given["X-Forwarded-For"] == "$remote_addr", "replaced, not appended"
    assert given["X-Forwarded-Proto"] == "$scheme"
    assert {"limit_conn", "client_header_timeout", "client_body_timeout", "client_max_body_size"} <= given.keys()


def test_redis_asks_for_the_password(compose: dict, tmp_path: Path) -> None:
    shell, option, script = compose["services"]["redis"]["command"]
    try:
        program = services.valkey_program()
    except services.Missing as missing:
        unavailable(str(missing))
    socket = tmp_path / "s"
    (tmp_path / "redis-server").symlink_to(program)
    # As compose writes it, with another place to listen.
    script = script.replace("$$", "$").replace("save", f"port 0\nunixsocket {socket}\nsave", 1)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "REDISCLI_AUTH": "letme-in"}
    log = tmp_path / "log"
    with log.open("wb") as out:
        server = subprocess.Popen([shell, option, script], env=environment, cwd=tmp_path, stdout=out, stderr=out)
    with server:
        try:
            services.wait_for_ping(socket, server, log, "letme-in")
            client = redis.Redis(unix_socket_path=str(socket), password="letme-in")
            with pytest.raises(redis.AuthenticationError):
                redis.Redis(unix_socket_path=str(socket)).ping()
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("save") == {"save": ""}
        finally:
            server.terminate()


def test_no_secret_has_a_default(compose: dict) -> None:
    text = COMPOSE.read_text()
    for variable in ("SNAKEPIT_SECRET_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD"):
        uses = re.findall(r"\$\{" + variable + r"([^}]*)\}", text)
        assert uses
        assert all(not use or use.startswith(":?") for use in uses)


def test_only_the_web_port_is_published_and_only_on_loopback(compose: dict) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"web": ["127.0.0.1:8000:8000"]}


def instructions() -> list[list[str]]:
    text = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [shlex.split(line) for line in lines]


def test_the_image_copies_only_what_exists_and_the_context_lets_through() -> None:
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().split()
    copies = [words[1:] for words in instructions() if words[0] == "COPY" and not words[1].startswith("--from")]
    assert copies
    for *names, _target in copies:
        for name in names:
            assert (ROOT / name).exists(), name
            assert f"!{name}" in ignored, f"{name} does not reach the build: deploy/Dockerfile.dockerignore"


def wheel_files(source: Path, out: Path) -> list[str]:
    """Build the wheel of a source folder with the backend that pip uses; the names of its files."""
    build = f"from hatchling.build import build_wheel; print(build_wheel({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    with ZipFile(out / done.stdout.split()[-1]) as archive:
        return sorted(archive.namelist())


def copies_before_the_installation() -> list[list[str]]:
    words = instructions()
    end = next(number for number, one in enumerate(words) if one[0] == "RUN" and one[1].endswith("/pip"))
    return [one[1:] for one in words[:end] if one[0] == "COPY"]


def test_the_files_that_the_image_copies_make_the_same_wheel_as_the_repository(tmp_path: Path) -> None:
    copied = tmp_path / "src"
    copied.mkdir()
    for *names, target in copies_before_the_installation():
        for name in names:
            if (ROOT / name).is_dir():  # COPY keeps the links that it finds in a folder
                left = shutil.ignore_patterns("__pycache__")  # as deploy/Dockerfile.dockerignore has it
                shutil.copytree(ROOT / name, copied / target, symlinks=True, ignore=left)
            else:
                shutil.copy(ROOT / name, copied / target)
    found = wheel_files(copied, tmp_path)
    assert {"snakepit/pools/apps.py", "snakepit/pools/templates/snakepit/base.html"} <= set(found)
    assert found == wheel_files(ROOT, tmp_path)


def test_the_extras_that_the_image_installs_exist_and_serve_the_site() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (installed,) = re.findall(r'pip install [^"]*"\.\[([\w,-]+)\]"', (ROOT / "deploy" / "Dockerfile").read_text())
    assert set(installed.split(",")) <= extras.keys()
    assert {"serve", "postgres"} <= set(installed.split(","))


def test_the_image_does_not_run_as_root() -> None:
    users = [words[1] for words in instructions() if words[0] == "USER"]
    assert users
    assert users[-1] not in ("root", "0", "0:0")


def test_the_compose_user_is_the_image_user(compose: dict) -> None:
    user = [words[1] for words in instructions() if words[0] == "USER"][-1]
    assert compose["services"]["broker"]["user"] == user


def unit(name: str = "broker") -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have capitals
    parser.read(ROOT / "deploy" / f"snakepit-{name}.service")
    return parser


def test_the_unit_leaves_the_drain_to_the_broker_and_kills_what_is_left() -> None:
    service = unit()["Service"]
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) >= 60
    assert service["RuntimeDirectoryMode"] == "0700"
    assert service["ExecStart"].endswith("snakepit broker")


@pytest.mark.parametrize("name", ["broker", "celery"])
def test_the_units_may_write_to_the_directories_that_the_example_of_the_environment_names(name: str) -> None:
    lines = (ROOT / "deploy" / "snakepit.env.example").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    service = unit(name)["Service"]
    assert service["ProtectSystem"] == "strict"
    assert f"/var/lib/{service['StateDirectory']}" == example["SNAKEPIT_STATE_DIR"]
    assert f"/run/{unit()['Service']['RuntimeDirectory']}" == example["SNAKEPIT_RUNTIME_DIR"]


def test_the_example_of_the_environment_names_each_variable_once() -> None:
    lines = (ROOT / "deploy" / "snakepit.env.example").read_text().splitlines()
    names = [line.partition("=")[0] for line in lines if "=" in line and not line.startswith("#")]
    assert len(names) == len(set(names))


def environment_names(text: str) -> set[str]:
    return set(re.findall(r"\b(?:SNAKEPIT|POSTGRES|REDIS)_[A-Z_]+", text))


def test_the_environment_example_names_every_variable_of_the_compose_file() -> None:
    example = environment_names((ROOT / "deploy" / "snakepit.env.example").read_text())
    used = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE.read_text()))
    assert used <= example


@pytest.mark.parametrize("file", ["docker-compose.yml", "deploy/snakepit.env.example"])
def test_the_site_reads_every_variable_that_is_set_for_it(file: str) -> None:
    site = "".join(path.read_text() for path in sorted((ROOT / "snakepit_site").glob("*.py")))
    site += "".join(path.read_text() for path in sorted((ROOT / "pools").rglob("*.py")))
    named = {name for name in environment_names((ROOT / file).read_text()) if name.startswith("SNAKEPIT_")}
    assert named
    assert {name for name in named if name not in site} == set()


def health(*arguments: str) -> int:
    command = [sys.executable, str(ROOT / "deploy" / "healthcheck.py"), *arguments]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode


def test_the_health_check_accepts_a_fresh_file_and_no_old_or_missing_one(tmp_path: Path) -> None:
    file = tmp_path / "schedule"
    file.touch()
    assert health("--newer", str(file), "600") == 0
    os.utime(file, (1, 1))
    assert health("--newer", str(file), "600") == 1
    assert health("--newer", str(tmp_path / "none"), "600") == 1
    assert health() == 2


def test_the_health_check_fails_without_a_listener() -> None:
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        assert health(f"http://127.0.0.1:{bound.getsockname()[1]}/") == 1
