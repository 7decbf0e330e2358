"""The table of libraries keeps its form, and verdicts follow from table, metadata and what workers saw."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from snakepit.pools.compat.assessment import AssessmentTarget, Package, assess
from snakepit.pools.compat.matrix import FREE_THREADING, Library, libraries, library_of, numbers, owner_of
from snakepit.pools.compat.report import packages_of, report, requirements

THREADS = AssessmentTarget("p")
FREE = AssessmentTarget("p", free_threaded=True)
GOOD = Library(
    name="x", modules=("x",), threads="safe", gil="pure", free_threading="pure", source="https://x.example/docs",
    checked=date(2026, 1, 1),
)  # fmt: skip


def test_the_table_has_what_teams_use_and_every_row_is_valid() -> None:
    known = libraries()
    assert len(known) >= 60
    assert known.keys() >= {
        "numpy", "scipy", "torch", "tensorflow", "polars", "scikit-learn", "xgboost", "transformers", "requests",
        "httpx", "pandas", "matplotlib", "sqlite3", "django", "pillow", "grpcio",
    }  # fmt: skip


def test_every_claim_about_threads_has_advice() -> None:
    for one in libraries().values():
        assert one.threads == "unknown" or one.advice, one.name
        assert (one.threads, one.source) != ("safe", "https://py-free-threading.github.io/tracking/"), one.name
        assert not one.since or one.free_threading in ("wheels", "partial", "stdlib"), one.name
        assert not one.abis or one.free_threading in ("wheels", "partial"), one.name
        assert not one.abis or one.wheels_source, one.name
        assert one.checked is None or one.checked <= date.today()


def test_the_common_libraries_of_django_and_ml_teams_are_checked() -> None:
    known = libraries()
    asked = (
        "numpy scipy torch tensorflow polars xgboost transformers requests httpx pandas matplotlib sqlite3 django "
        "psycopg redis lxml pillow pydantic grpcio protobuf lightgbm spacy tokenizers sentence-transformers "
        "opencv-python duckdb sqlalchemy aiohttp boto3 uvloop"
    )
    for name in asked.split():
        assert (known[name].threads != "unknown", known[name].checked is not None) == (True, True), name


def test_an_unchecked_row_is_marked() -> None:
    assert replace(GOOD, checked=None).checked is None
    unread = [one.name for one in libraries().values() if one.checked is None]
    assert unread
    assert assess(Package(unread[0], "1"), THREADS).checked == ""


def test_no_module_belongs_to_two_libraries() -> None:
    modules = [module for one in libraries().values() for module in one.modules]
    assert len(modules) == len(set(modules))


@pytest.mark.parametrize(
    "wrong",
    [
        {"threads": "yes"}, {"gil": ""}, {"free_threading": "cp313t"}, {"name": "X"}, {"modules": ()}, {"since": "v1"},
        {"minimum": "new"}, {"source": "the docs"}, {"source": "http://x.example"}, {"checked": "2026-01-01"},
        {"abis": ("cp314",)}, {"last": {"cp313t": "1"}}, {"abis": ("cp313t",), "last": {"cp313t": "v1"}},
        {"wheels_source": "the index"},
    ],
    ids=str,
)  # fmt: skip
def test_a_row_that_is_not_valid_is_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="x"):
        replace(GOOD, **wrong)  # type: ignore[arg-type]
    assert "none" in FREE_THREADING


def test_libraries_are_found_by_any_spelling_and_by_their_modules() -> None:
    assert library_of("Scikit_Learn") is owner_of("sklearn.svm._libsvm") is libraries()["scikit-learn"]
    assert library_of("opencv_contrib.python") is owner_of("cv2.dnn") is libraries()["opencv-python"]
    assert library_of("nobody-knows") is None
    assert owner_of("numpyro") is None
    assert numbers("2.0.0rc1") == (2, 0, 0)


def test_in_the_process_profile_everything_is_safe() -> None:
    assert assess(Package("matplotlib", "3.9"), replace(THREADS, threads=False)).status == "safe"


def test_in_threads_the_table_decides() -> None:
    assert assess(Package("matplotlib", "3.9"), THREADS).status == "unsafe"
    verdict = assess(Package("numpy", "2.2"), THREADS)
    assert (verdict.status, verdict.since) == ("conditional", "2.1.0")
    assert "reading only" in verdict.advice
    assert assess(Package("httpx", "0.28"), THREADS).status == "safe"
    assert assess(Package("rapidfuzz", "3.14"), THREADS).status == "unknown"


def test_a_version_before_the_first_thread_safe_one_is_unsafe() -> None:
    verdict = assess(Package("xgboost", "1.3.3"), THREADS)
    assert (verdict.status, verdict.reasons) == (
        "unsafe",
        ("1.3.3 is older than 1.4, the first thread-safe version",),
    )
    assert assess(Package("xgboost", "1.4.0"), THREADS).status == "conditional"


def test_package_metadata_counts_for_libraries_without_a_row() -> None:
    assert assess(Package("own", "1", support="3 - Stable"), THREADS).status == "safe"
    assert assess(Package("own", "1", support="1 - Unstable"), THREADS).status == "unknown"
    assert assess(Package("matplotlib", "3.9", support="3 - Stable"), THREADS).status == "unsafe"


def test_on_a_free_threaded_interpreter_wheels_and_versions_count() -> None:
    assert assess(Package("grpcio", "1.80"), FREE).status == "conditional"
    assert assess(Package("shapely", "2.0.1"), FREE).reasons == (
        "2.0.1 is older than 2.1.0, the first for free-threaded Python",
    )
    assert assess(Package("h5py", "3.16.0"), FREE).status == "safe"
    wheel = assess(Package("h5py", "3.15", tags=("cp314-cp314t-manylinux_2_28_x86_64",)), FREE)
    assert wheel.reasons == ("free-threaded: its wheel is built for it",)
    assert assess(Package("own", "1", compiled=True, support="3 - Stable"), FREE).status == "safe"


def test_each_free_threaded_abi_is_judged_by_its_own_wheels() -> None:
    old, new = replace(FREE, abi="cp313t"), replace(FREE, abi="cp314t")
    torch = assess(Package("torch", "2.13.0"), old)
    assert (torch.reasons, torch.abis) == (("2.12 is the last version with wheels for cp313t",), ("cp313t", "cp314t"))
    assert torch.wheels == "wheels from 2.6.0: cp313t up to 2.12, cp314t"
    assert assess(Package("torch", "2.13.0"), new).reasons == assess(Package("torch", "2.12.1"), old).reasons == ()
    assert "none for cp313t" in assess(Package("uvloop", "0.23.0"), old).reasons[0]
    assert assess(Package("uvloop", "0.23.0"), new).reasons == ()
    assert assess(Package("uvloop", "0.23.0"), FREE).reasons == ()


def test_observations_of_workers_outweigh_the_table() -> None:
    seen = replace(FREE, culprits=("shapely.lib", "own_ext"))
    verdict = assess(Package("shapely", "2.1.0", support="3 - Stable"), seen)
    assert (verdict.status, verdict.reasons) == ("unsafe", ("it enabled the GIL in workers (shapely.lib)",))
    assert assess(Package("own", "1", compiled=True, modules=("own_ext",)), seen).status == "unsafe"
    assert assess(Package("httpx", "1"), seen).status == "safe"


def test_a_report_has_the_worst_first_and_leaves_plain_python_out() -> None:
    found = report(
        THREADS,
        "Python",
        [
            Package("httpx", "0.28", tags=("py3-none-any",)),
            Package("plain", "1", tags=("py3-none-any",)),
            Package("compiled", "1", tags=("cp311-cp311-linux_x86_64",), compiled=True),
            Package("matplotlib", "3.9", compiled=True),
        ],
    )
    assert [(one.name, one.status) for one in found.verdicts] == [
        ("matplotlib", "unsafe"), ("compiled", "unknown"), ("httpx", "safe"),
    ]  # fmt: skip
    assert (found.left_out, found.unsafe, found.plain()["unsafe"]) == (1, True, True)


def test_an_answer_of_an_interpreter_becomes_packages_and_sqlite3() -> None:
    row = {"name": "X", "version": "1", "support": "", "tags": ["a-b-c"], "compiled": True, "modules": ["x"]}
    found = packages_of({"version": "3.14.0", "packages": [row]})
    assert found == [Package("X", "1", "", ("a-b-c",), True, ("x",)), Package("sqlite3", "3.14.0")]


def test_a_missing_library_differs_from_an_undocumented_one() -> None:
    assert assess(Package("nobody-knows"), THREADS).reasons == ("not in the table: thread safety unknown",)
    assert assess(Package("rapidfuzz"), THREADS).reasons == ("its documentation does not mention threads",)


def test_requirements_are_read_as_pip_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(
        "\ufeffscipy===1.15.0\n# ours\n-e .\n./local.whl\nhere @ https://x.example/h.whl\n"
        "-r more.txt\n--hash=sha256:00\nNumPy[extra] == 2.2.1 ; python_version > '3'\npandas>=2\n\n"
        "git+https://x.example/a.git\nhttps://x.example/b.whl\nmatplotlib # plots\nnumpy==9\n"
    )
    assert [(one.name, one.version) for one in requirements(file)] == [
        ("scipy", "1.15.0"), ("numpy", "2.2.1"), ("pandas", ""), ("matplotlib", ""),
    ]  # fmt: skip
