"""The matrix of rights on the pages of the dashboard: every identity on every page. A page without an entry fails."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, reverse

from snakepit.pools.dashboard.urls import urlpatterns
from tests.process.integration.test_matrix import IDENTITIES, USERS, VALUES, granted, job, signed_in

__all__ = ["job"]  # a fixture
pytestmark = pytest.mark.django_db
VIEW, RUN, OPERATE, CONFIGURE, PAYLOAD = "view_pool", "run_command", "operate_pool", "change_pool", "view_payload"
MANAGE = "manage_job"
# What each page needs, beside `view_pool`; one of them is enough.
PAGES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("overview", "pools", "pool", "jobs", "job", "job-errors", "periodic", "workflows", "workflow", "audit",
         "workers", "worker", "nodes", "events", "diagnostics", "report", "fragments", "palette", "series"),
        (VIEW,),
    ),
    **dict.fromkeys(("job-payload", "job-events"), (PAYLOAD,)),
    **dict.fromkeys(("playground", "playground-run", "playground-submit"), (RUN,)),
    **dict.fromkeys(
        ("pool-recycle", "pool-scale", "pool-pause", "pool-drain", "pool-resume", "pool-pause_queue",
         "pool-resume_queue", "worker-recycle", "worker-stacks", "worker-kill", "node-drain", "node-resume",
         "periodic-act"),
        (OPERATE,),
    ),
    "jobs-act": (MANAGE, RUN),  # of their own jobs
    "job-act": (MANAGE,),
    "apply": (CONFIGURE,),
}  # fmt: skip
# The first is for everybody with its token (test_site.py). The second needs ASGI (test_stream.py).
ELSEWHERE = {"demo-login", "stream"}
POSTED = {"playground-run", "playground-submit"}  # they have no GET


def url_of(page: URLPattern, job: str) -> str:
    name, given = str(page.name), {"key": "size:digits", "which": "arguments", "action": "cancel", "name": "digits"}
    given["ident"] = job if name.startswith("job") else VALUES["workflow_id"] if name == "workflow" else "digits-1"
    if name == "periodic-act":
        given |= {"name": VALUES["name"], "action": "run"}
    if name.startswith("node"):
        given["name"] = VALUES["node"]
    wanted = getattr(page.pattern, "converters", None) or page.pattern.regex.groupindex
    return reverse(f"snakepit:{name}", kwargs={one: given[one] for one in wanted})


def test_every_page_has_an_entry() -> None:
    assert {page.name for page in urlpatterns} == {*PAGES, *ELSEWHERE}


@pytest.mark.parametrize("identity", IDENTITIES)
def test_an_identity_opens_the_pages_that_its_rights_allow(
    identity: str, job: str, client: Client, django_user_model: Any
) -> None:
    headers = signed_in(identity, client, django_user_model)
    rights = granted(identity) if identity in USERS else frozenset[str]()  # a key opens no page
    wrong = []
    for page in urlpatterns:
        if page.name in ELSEWHERE:
            continue
        url = url_of(page, job)
        answer = client.post(url, headers=headers) if page.name in POSTED else client.get(url, headers=headers)
        refused = answer.status_code == 403 or "/login/" in answer.get("Location", "")
        allowed = VIEW in rights and not rights.isdisjoint(PAGES[str(page.name)])
        if refused is allowed or answer.status_code >= 500:
            wrong.append(f"{page.name}: {answer.status_code}, expected {'to pass' if allowed else 'to be refused'}")
    assert wrong == []
