"""docs/howto/testing.md in a project of its own: the page's files, its tests, and pytest without a broker or Redis."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from django.core.management import call_command

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "howto" / "testing.md").read_text()
BLOCK = re.compile(r"^```(?:python|ini)\n# (added to )?(\S+\.\w+)\n(.*?)^```$", re.M | re.S)
# Of this repository's own tests, and not of a project.
PLUGINS = [
    f"-pno:{name}" for name in ("asyncio", "randomly", "timeout", "cacheprovider", "hypothesispytest", "playwright")
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's project, made as the page says."""
    folder = tmp_path_factory.mktemp("project")
    call_command("startproject", "shop", str(folder), verbosity=0)
    for added, name, text in BLOCK.findall(PAGE):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.read_text() + "\n" + text if added else text)
    return folder


def run(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in an environment that names no broker, no Redis and no settings."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=project, env=environment, capture_output=True, text=True, timeout=110
    )


def run_pytest(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    installed = any(point.name == "snakepit" for point in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "snakepit.testing.plugin"]  # an older installation does not name it
    return run(project, "-m", "pytest", *plugin, *PLUGINS, "-W", "error", "-q", *options)


def test_the_pages_tests_pass_without_a_broker_and_without_redis(project: Path) -> None:
    done = run_pytest(project, "tests", "--strict-markers")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^10 passed", done.stdout, re.M), done.stdout


def test_the_pages_test_case_passes_with_djangos_own_runner(project: Path) -> None:
    done = run(project, "manage.py", "test", "tests", "-p", "test_case.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ran 1 test" in done.stderr


def test_the_setting_runs_pools_in_process_without_a_fixture(project: Path) -> None:
    program = """
import django
from django.conf import settings
django.setup()
from snakepit import connect
print(connect().call("prices", "total", items=["tea"]))
from django.test import override_settings
from snakepit.pools.broker.errors import BrokerUnreachable
with override_settings(SNAKEPIT={**settings.SNAKEPIT, "TEST": False}):
    try:
        connect(connect_timeout=0.01).call("prices", "total", items=["tea"])
    except BrokerUnreachable:
        print("unreachable")
print(connect().call("prices", "total", items=["cake"]))
"""
    (project / "shop" / "test_settings.py").write_text(
        'from shop.settings import *\nSNAKEPIT = {**SNAKEPIT, "TEST": True, "RUNTIME_DIR": "/nonexistent/snakepit"}\n'
    )
    command = f"import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.test_settings'\n{program}"
    done = run(project, "-W", "error", "-c", command)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["3", "unreachable", "5"], "")


def test_the_plugin_leaves_a_project_without_django_alone(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text(
        "import sys\n\n\ndef test_nothing_is_loaded():\n"
        "    assert 'snakepit.testing.plugin' in sys.modules\n"
        "    loaded = {name for name in sys.modules if name.partition('.')[0] in ('django', 'grpclib', 'celery')}\n"
        "    assert loaded == set()\n"
        "    ours = {name for name in sys.modules if name.startswith('snakepit')}\n"
        "    assert ours == {'snakepit', 'snakepit.testing', 'snakepit.testing.plugin'}\n"
    )
    done = run_pytest(tmp_path, "-p", "no:django")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_kit_works_without_django(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text(
        "import sys\n\nimport pytest\n\nfrom snakepit import Adapter, command, connect\n\n\n"
        "class Texts(Adapter):\n    @command\n"
        "    def words(self, text: str) -> int:\n        return len(text.split())\n\n\n"
        '@pytest.mark.snakepit_pools({"texts": Texts})\n'
        "def test_a_call(snakepit_pools, snakepit_calls):\n"
        '    assert connect("broker.sock").call("texts", "words", text="a b") == 2\n'
        '    snakepit_calls.assert_called_once_with("texts", "words", text="a b")\n'
        "    assert not any(name.partition('.')[0] == 'django' for name in sys.modules)\n"
    )
    done = run_pytest(tmp_path, "-p", "no:django", "--strict-markers")
    assert done.returncode == 0, done.stdout + done.stderr
