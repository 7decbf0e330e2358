"""The allow-list of environment variables: what a row may set, and what it may not."""

from __future__ import annotations

import pytest

from snakepit.pools.broker.worker_env import SAFE, find_refused

# Each decides which code runs, or names a file that a library loads.
DECIDING = [
    "LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "GLIBC_TUNABLES", "GCONV_PATH", "LOCPATH",
    "NLSPATH", "MALLOC_TRACE", "OPENSSL_CONF", "OPENSSL_MODULES", "OPENSSL_ENGINES", "SSL_CERT_FILE", "SSLKEYLOGFILE",
    "OMP_TOOL_LIBRARIES", "OMP_TOOL", "CUDA_INJECTION64_PATH", "NVIDIA_DRIVER_CAPABILITIES", "CUDA_CACHE_PATH",
    "NODE_OPTIONS", "PERL5OPT", "RUBYOPT", "JAVA_TOOL_OPTIONS", "HOME", "PATH", "Path", "BASH_ENV", "ENV",
    "PYTHONSTARTUP", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONBREAKPOINT", "PYTHONINSPECT", "PYTHONPYCACHEPREFIX",
    "PYTHONPLATLIBDIR", "HF_HOME", "HF_ENDPOINT", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "MPLBACKEND",
    "NUMBA_CACHE_DIR", "TORCH_HOME", "TRITON_CACHE_DIR", "R_HOME", "GIT_SSH_COMMAND", "HTTP_PROXY", "https_proxy",
    "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PGSERVICEFILE", "PGPASSWORD", "TZDIR", "TERMINFO",
    "KRB5_CONFIG", "PIP_INDEX_URL", "DJANGO_SETTINGS_MODULE", "TF_PLUGGABLE_DEVICE_LIBRARY_PATH", "OCL_ICD_VENDORS",
    "MKL_VML_MODE", "TMPDIR", "ANYTHING",
]  # fmt: skip


@pytest.mark.parametrize("name", DECIDING)
def test_a_variable_that_no_list_allows_is_refused_with_the_line_that_allows_it(name: str) -> None:
    why = find_refused({"OMP_NUM_THREADS": "2", name: "x"})
    assert why.startswith(f"{name} is not an allowed variable")
    assert f"SNAKEPIT['WORKER_ENV_ALLOWED'] = ['{name}']" in why
    assert find_refused({name: "x"}, [name]) == ""


@pytest.mark.parametrize("name", SAFE)
def test_a_safe_variable_takes_a_plain_value_and_no_file(name: str) -> None:
    assert find_refused({name: "1"}) == ""
    for value in ("/tmp/evil", ":/etc/shadow", "../x", "./x", "a/../../x", "a\nb", "~/x", "$HOME"):
        assert "may not name a file" in find_refused({name: value}), value
    assert find_refused({name: "/tmp/chosen"}, [name]) == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TZ", "Europe/Berlin"),
        ("TZ", "America/Argentina/Buenos_Aires"),
        ("TZ", "CET-1CEST,M3.5.0,M10.5.0"),
        ("LANG", "de_DE.UTF-8"),
        ("LC_ALL", "C.UTF-8"),
        ("OMP_PLACES", "{0:4}:2"),
        ("CUDA_VISIBLE_DEVICES", "0,1"),
        ("PYTHON_GIL", "0"),
    ],
)
def test_the_usual_values_of_safe_variables_pass(name: str, value: str) -> None:
    assert find_refused({name: value}) == ""


def test_a_prefix_allows_what_begins_with_it_and_nothing_else() -> None:
    assert find_refused({"SHOP_URL": "x", "SHOP_": "y"}, ["SHOP_*"]) == ""
    for name in ("SHOPPING", "shop_url", "MY_SHOP_URL"):
        assert find_refused({name: "x"}, ["SHOP_*"])


def test_what_the_settings_set_is_allowed_with_that_value_alone() -> None:
    given = {"OPENSSL_CONF": "/etc/ours.cnf"}
    assert find_refused(given, of_settings=given) == ""
    assert find_refused({"OPENSSL_CONF": "/tmp/evil.cnf"}, of_settings=given)
    assert find_refused({"LD_PRELOAD": "/etc/ours.cnf"}, of_settings=given)
