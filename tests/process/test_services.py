"""The servers that other tests lean on come up, answer, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import redis

from tests import services


@pytest.mark.postgres
def test_a_postgresql_of_our_own_answers_and_is_gone_afterwards(postgres_url: str) -> None:
    # The fixture decides about skipping; the second cluster shows that two can live side by side.
    with services.postgres() as url:
        assert url != postgres_url
        home = Path(parse_qs(urlsplit(url).query)["host"][0])
        with psycopg.connect(url) as connection:
            assert connection.execute("select current_database()").fetchone() == ("snakepit",)
    assert not home.exists()


def test_a_valkey_of_our_own_answers_and_is_gone_afterwards(valkey_url: str) -> None:
    with services.valkey() as url:
        assert url != valkey_url
        path = urlsplit(url).path
        with redis.Redis(unix_socket_path=path) as client:
            assert client.set("key", "value")
    assert not Path(path).exists()
