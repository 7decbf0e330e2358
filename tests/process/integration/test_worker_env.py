"""Environment variables of pools: refused where a row is saved, and where a row that came otherwise is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.test import Client
from django.urls import reverse

from snakepit.pools import conf
from snakepit.pools.adapters.records.definitions import DatabaseDefinitions
from snakepit.pools.broker.errors import DefinitionInvalid
from snakepit.pools.checks import check_snakepit
from snakepit.pools.diagnostics.doctor import _rows
from snakepit.pools.models import Pool
from snakepit.pools.models.pool import sync_pools
from snakepit.pools.operations import orders
from tests.process.integration.conftest import ADAPTERS
from tests.process.integration.fakes import FakeClient
from tests.process.integration.test_admin import form_of

pytestmark = pytest.mark.django_db
BAD = {"OPENSSL_CONF": "/tmp/evil.cnf"}
REASON = "env: OPENSSL_CONF is not an allowed variable"


def test_a_row_is_refused_until_the_settings_allow_its_variable(settings: Any) -> None:
    row = Pool(name="digits", adapter="digits", size=2, env=BAD)
    with pytest.raises(ValidationError, match=r"SNAKEPIT\['WORKER_ENV_ALLOWED'\] = \['OPENSSL_CONF'\]") as caught:
        row.full_clean()
    assert set(caught.value.message_dict) == {"env"}
    settings.SNAKEPIT = {**settings.SNAKEPIT, "WORKER_ENV_ALLOWED": ["OPENSSL_*"]}
    row.full_clean()


def test_the_admin_refuses_the_variable_and_shows_a_row_that_has_one(admin_client: Client, broker: FakeClient) -> None:
    page = reverse("admin:snakepit_pools_pool_add")
    data = {**form_of(admin_client.get(page)), "name": "digits", "adapter": "digits", "size": 2, "args": "{}"}
    response = admin_client.post(page, {**data, "env": '{"OPENSSL_CONF": "/tmp/evil.cnf"}'})
    assert "OPENSSL_CONF is not an allowed variable" in response.content.decode()
    assert not Pool.objects.exists()
    row = Pool.objects.create(name="digits", adapter="digits", size=2, env=BAD)
    assert REASON in admin_client.get(reverse("admin:snakepit_pools_pool_changelist")).content.decode()
    page = reverse("admin:snakepit_pools_pool_change", args=(row.pk,))
    assert REASON in admin_client.get(page).content.decode()
    assert admin_client.post(page, {**data, "env": "{}"}).status_code == 302  # it can be repaired
    assert Pool.objects.get().env == {}


@pytest.mark.django_db(transaction=True)  # the definitions use a connection of their own
def test_a_row_that_came_otherwise_is_a_problem_and_the_others_are_loaded(
    client: Client, make_key: Callable[..., str], broker: FakeClient
) -> None:
    Pool.objects.create(name="good", adapter="digits", size=1, env={"OMP_NUM_THREADS": "2"})
    Pool.objects.create(name="bad", adapter="digits", size=1, env=BAD)
    loaded = DatabaseDefinitions().load()
    assert [definition.spec.name for definition in loaded.definitions] == ["good"]
    ((name, problem),) = loaded.problems
    assert name == "bad"
    assert problem.startswith(REASON)
    assert str(dict(_rows())["bad"]).startswith(REASON)
    shown = client.get("/api/pools", headers={"Authorization": make_key("view")}).json()["pools"]
    assert [(one["name"], one["problem"][: len(REASON)]) for one in shown] == [("bad", REASON), ("good", "")]
    with pytest.raises(DefinitionInvalid, match="OPENSSL_CONF is not an allowed variable"):
        orders.scale(broker, "bad", 3, orders.Order("ada"))


@pytest.mark.django_db(transaction=True)  # the definitions use a connection of their own
def test_what_the_settings_set_themselves_is_trusted_with_their_value(settings: Any) -> None:
    pools = {"digits": {"adapter": "digits", "size": 1, "env": {"OPENSSL_CONF": "/etc/ours.cnf"}}}
    settings.SNAKEPIT = {"ADAPTERS": ADAPTERS, "NODE_NAME": "node-1", "POOLS": pools}
    assert not [message for message in check_snakepit() if "OPENSSL" in message.msg]
    sync_pools()
    assert DatabaseDefinitions().load().problems == ()
    Pool.objects.update(env=BAD)  # after the broker's start, which would write the settings' own value again
    definitions = DatabaseDefinitions()
    definitions._synced = True
    assert definitions.load().problems[0][1].startswith(REASON)


def test_the_single_pool_form_is_trusted_as_well(settings: Any) -> None:
    settings.SNAKEPIT = {"ADAPTER": ADAPTERS["digits"], "POOL_SIZE": 1, "ENV": {"SHOP_URL": "x"}}
    assert conf.find_env_problem("default", {"SHOP_URL": "x"}) == ""
    assert conf.find_env_problem("other", {"SHOP_URL": "x"})


@pytest.mark.parametrize("wrong", [["*"], ["A B"], "A", [5], ["A*B"]])
def test_the_check_refuses_what_is_no_name_or_prefix(settings: Any, wrong: Any) -> None:
    settings.SNAKEPIT = {**settings.SNAKEPIT, "WORKER_ENV_ALLOWED": wrong}
    assert any("WORKER_ENV_ALLOWED" in message.msg for message in check_snakepit())
    with pytest.raises(ImproperlyConfigured):
        conf.current()


def test_the_settings_may_not_set_what_the_broker_sets(settings: Any) -> None:
    pools = {"digits": {"adapter": "digits", "env": {"SNAKEPIT_INSTANCE": "x"}}}
    settings.SNAKEPIT = {"ADAPTERS": ADAPTERS, "POOLS": pools}
    (problem,) = check_snakepit()
    assert "is set by the broker itself" in problem.msg
