"""The layouts of deploy/kubernetes/: each object fits its schema, and the parts fit each other."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from uvicorn.main import main as uvicorn_command

from tests.brokers import PATIENCE
from tests.certificates import Authority
from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "deploy/kubernetes"
LAYOUTS = ("sidecar", "network", "gpu")
OLDEST = "1.29"  # the first one whose init containers restart
FOREIGN = ("cert-manager.io/v1",)  # their schemas are not part of Kubernetes


def objects(layout: str) -> Iterator[dict[str, Any]]:
    """The objects of a layout: those of its kustomization's resources, and of the folders that it names."""
    kustomization = yaml.safe_load((FOLDER / layout / "kustomization.yaml").read_text())
    assert kustomization.keys() <= {"apiVersion", "kind", "resources", "images"}, "this test applies nothing else"
    for resource in kustomization["resources"]:
        path = FOLDER / layout / resource
        if path.is_dir():
            yield from objects(str(path.resolve().relative_to(FOLDER)))
        else:
            yield from yaml.safe_load_all(path.read_text())


def named(layout: str, kind: str, name: str) -> dict[str, Any]:
    (found,) = [one for one in objects(layout) if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def pods(layout: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for one in objects(layout):
        if "template" in one.get("spec", {}):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def container(pod: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in containers(pod) if one["name"] == name]
    return found


def mounts(one: dict[str, Any]) -> dict[str, str]:
    return {mount["name"]: mount["mountPath"] for mount in one.get("volumeMounts", [])}


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_object_fits_its_schema(layout: str, version: str) -> None:
    own = [one for one in objects(layout) if one["apiVersion"] not in FOREIGN]
    assert len(own) > 3
    for one in own:
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_two_objects_have_one_name(layout: str) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in objects(layout)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_service_budget_and_autoscaler_finds_its_pods(layout: str) -> None:
    labels = [
        one["spec"]["template"]["metadata"]["labels"] for one in objects(layout) if "template" in one.get("spec", {})
    ]
    for one in objects(layout):
        if one["kind"] in ("Service", "PodDisruptionBudget"):
            wanted = one["spec"]["selector"]
            wanted = wanted.get("matchLabels", wanted)
            assert any(wanted.items() <= own.items() for own in labels), one["metadata"]["name"]
        if one["kind"] in ("StatefulSet", "Deployment"):
            assert (
                one["spec"]["selector"]["matchLabels"].items() <= one["spec"]["template"]["metadata"]["labels"].items()
            )
        if one["kind"] == "HorizontalPodAutoscaler":
            target = one["spec"]["scaleTargetRef"]
            assert named(layout, target["kind"], target["name"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_container_is_closed_and_bounded(layout: str) -> None:
    for name, pod in pods(layout):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["automountServiceAccountToken"] is False, name
        for one in containers(pod):
            assert one["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
            if one["name"] != "migrate":
                assert one["resources"]["limits"]["memory"], one["name"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_volume_is_mounted_and_each_mount_has_its_volume(layout: str) -> None:
    for name, pod in pods(layout):
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        assert {one for each in containers(pod) for one in mounts(each)} == volumes, name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_secret_of_a_certificate_has_a_certificate(layout: str) -> None:
    made = {one["spec"]["secretName"] for one in objects(layout) if one["kind"] == "Certificate"}
    for _, pod in pods(layout):
        assert {volume["secret"]["secretName"] for volume in pod.get("volumes", []) if "secret" in volume} <= made


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_variable_is_one_that_the_example_explains(layout: str) -> None:
    known = (ROOT / "deploy/snakepit.env.example").read_text()
    given = set(named(layout, "ConfigMap", "snakepit")["data"])
    given |= {each["name"] for _, pod in pods(layout) for one in containers(pod) for each in one.get("env", [])}
    assert {name for name in given - {"POD_NAME"} if f"{name}=" not in known} == set()


@pytest.mark.parametrize(("layout", "pod_name"), [("sidecar", "snakepit"), ("network", "snakepit-broker")])
def test_the_runtime_directory_is_below_its_volume(layout: str, pod_name: str) -> None:
    """The root of an emptyDir is open to all users, which the broker refuses."""
    settings = named(layout, "ConfigMap", "snakepit")["data"]
    pod = dict(pods(layout))[pod_name]
    for one in containers(pod):
        if "runtime" in mounts(one):
            assert Path(settings["SNAKEPIT_RUNTIME_DIR"]).parent == Path(mounts(one)["runtime"])
    assert "emptyDir" in next(volume for volume in pod["volumes"] if volume["name"] == "runtime")


def test_the_sidecar_starts_before_its_clients_and_ends_after_them() -> None:
    pod = dict(pods("sidecar"))["snakepit"]
    (broker,) = [one for one in pod["initContainers"] if one.get("restartPolicy") == "Always"]
    assert broker["command"] == ["snakepit", "broker"]
    assert [one["name"] for one in pod["containers"]] == ["web", "celery"]
    assert pod["terminationGracePeriodSeconds"] > 60


@pytest.mark.parametrize(("layout", "name"), [("network", "snakepit-broker"), ("gpu", "snakepit-broker-gpu")])
def test_a_pod_of_a_broker_drains_before_it_ends(layout: str, name: str) -> None:
    pod = dict(pods(layout))[name]
    command = container(pod, "broker")["lifecycle"]["preStop"]["exec"]["command"]
    assert command[:3] == ["snakepit", "drain", "--node"]
    assert pod["terminationGracePeriodSeconds"] > float(command[command.index("--timeout") + 1]) + 60


def test_the_brokers_with_a_gpu_ask_for_one_and_say_so() -> None:
    pod = dict(pods("gpu"))["snakepit-broker-gpu"]
    broker = container(pod, "broker")
    assert broker["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {"name": "SNAKEPIT_NODE_LABELS", "value": "gpu=yes"} in broker["env"]
    plain = container(dict(pods("gpu"))["snakepit-broker"], "broker")
    assert "nvidia.com/gpu" not in plain["resources"]["limits"]


@pytest.mark.parametrize(("layout", "pod_name"), [("sidecar", "snakepit"), ("network", "snakepit-web")])
def test_the_web_server_accepts_its_command_line(layout: str, pod_name: str) -> None:
    options = {name for one in uvicorn_command.params for name in (*one.opts, *one.secondary_opts)}
    web = container(dict(pods(layout))[pod_name], "web")
    assert {word for word in web["command"] if word.startswith("--")} <= options
    assert {port["name"] for port in web["ports"]} == {web["readinessProbe"]["httpGet"]["port"]}


class Cluster:
    """Runs the containers of the layout `network` as processes: the same commands, with the same environment."""

    def __init__(self, home: Path, ends: ExitStack) -> None:
        self.home, self._ends = home, ends
        self.port, self.web_port = free_port(), free_port()
        authority = Authority(home)
        for secret, name in (("snakepit-broker-tls", "snakepit-broker"), ("snakepit-client-tls", "snakepit-web")):
            place = home / secret
            place.mkdir()
            certificate, key = map(Path, authority.issue(name))
            certificate.rename(place / "tls.crt")
            key.rename(place / "tls.key")
            (place / "ca.crt").write_bytes(authority.path.read_bytes())

    def environment(self, pod_name: str, name: str) -> dict[str, str]:
        """The container's environment, with paths and addresses of this machine."""
        pod = dict(pods("network"))[pod_name]
        given = dict(named("network", "ConfigMap", "snakepit")["data"])
        given |= {one["name"]: one["value"] for one in container(pod, name).get("env", []) if "value" in one}
        (self.home / pod_name).mkdir(exist_ok=True)
        places = {
            "/run/snakepit": str(self.home / pod_name), "/tmp/snakepit": str(self.home / "state"),
            "$(POD_NAME)": "snakepit-broker-0", "[::]:7443": f"127.0.0.1:{self.port}",
            "snakepit-broker-0.snakepit-broker:7443": f"localhost:{self.port}",
            "dns:///snakepit-broker:7443": f"dns:///localhost:{self.port}",
        }  # fmt: skip
        for volume in pod.get("volumes", []):
            if "secret" in volume:
                places["/etc/snakepit/tls"] = str(self.home / volume["secret"]["secretName"])
        for key, value in given.items():
            for old, new in places.items():
                value = value.replace(old, new)
            given[key] = value
        secret = {
            "SNAKEPIT_SECRET_KEY": "a secret of this test, which is longer than fifty characters, as Django wants",
            "SNAKEPIT_DATABASE_URL": f"sqlite:///{self.home}/db.sqlite3",
            "SNAKEPIT_REDIS_URL": "redis://127.0.0.1:9/0",
        }
        plain = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEPIT")}
        demo = {"SNAKEPIT_DEMO": "1", "DJANGO_SETTINGS_MODULE": "snakepit.site.settings", "PYTHONPATH": str(ROOT)}
        return {**plain, **given, **secret, **demo, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def start(self, pod_name: str, name: str, **changed: str) -> None:
        words = [changed.get(word, word) for word in container(dict(pods("network"))[pod_name], name)["command"]]
        log = self._ends.enter_context((self.home / f"{name}.log").open("wb"))
        process = subprocess.Popen(words, cwd=ROOT, env=self.environment(pod_name, name), stdout=log, stderr=log)
        self._ends.callback(lambda: (process.terminate(), process.wait(PATIENCE)))

    def run(self, pod_name: str, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=ROOT, env=self.environment(pod_name, name), text=True, capture_output=True,
            timeout=3 * PATIENCE, check=False,
        )  # fmt: skip


def eventually(ask: Callable[[], Any]) -> Any:
    """The first answer that is true. A process that starts has no other sign for this one, so this asks repeatedly."""
    end = time.monotonic() + 3 * PATIENCE
    while not (found := ask()):
        assert time.monotonic() < end, "no answer"
        time.sleep(0.2)
    return found


def status_of(request: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except OSError:
        return 0


def test_a_web_server_reaches_the_broker_of_another_pod_through_mutual_tls() -> None:
    with tempfile.TemporaryDirectory(prefix="snakepit-", dir="/tmp") as home, ExitStack() as ends:
        cluster = Cluster(Path(home), ends)
        (Path(home) / "state").mkdir()
        migrate = container(dict(pods("network"))["snakepit-migrate"], "migrate")["command"]
        assert cluster.run("snakepit-migrate", "migrate", *migrate).returncode == 0
        cluster.start("snakepit-broker", "broker")
        call = ("snakepit", "call", "primes", "count", '{"below": 100}')
        done = eventually(lambda: (one := cluster.run("snakepit-web", "web", *call)).returncode == 0 and one)
        assert done.stdout.strip() == "25"
        cluster.start("snakepit-web", "web", **{"8000": str(cluster.web_port), "0.0.0.0": "127.0.0.1"})
        ready = urllib.request.Request(f"http://127.0.0.1:{cluster.web_port}/api/ready", headers={"Host": "localhost"})
        assert eventually(lambda: status_of(ready)) == 200
        drain = container(dict(pods("network"))["snakepit-broker"], "broker")["lifecycle"]["preStop"]["exec"]["command"]
        assert cluster.run("snakepit-broker", "broker", *drain).returncode == 0
