"""Revocation lists and certificates, as the parser of DER reads them."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest

from snakepit.pools.adapters.network.der import issuer_and_serial, validity
from snakepit.pools.adapters.network.revocation import read_lists
from snakepit.pools.listening import server_files
from tests.certificates import Authority

DAY = 86_400.0


def der(path: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(Path(path).read_text())


def test_the_certificates_of_every_list_are_found_by_issuer_and_serial(tmp_path: Path) -> None:
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    certificates = [authority.issue(name)[0] for authority, name in ((first, "a"), (first, "b"), (second, "c"))]
    text = (first.revoke(*certificates[:1], days=9) + second.revoke(certificates[2], days=4)).decode()
    lists = read_lists(text)
    assert [issuer_and_serial(der(path)) in lists.revoked for path in certificates] == [True, False, True]
    assert lists.expires == pytest.approx(time.time() + 4 * DAY, abs=60)
    assert lists.issued == pytest.approx(time.time() - 30 * DAY, abs=60)
    assert lists.problem("crl.pem", time.time()) == ""
    assert "crl.pem: a list has expired" in lists.problem("crl.pem", time.time() + 5 * DAY)


def test_an_empty_list_revokes_nothing(tmp_path: Path) -> None:
    assert read_lists(Authority(tmp_path).revoke().decode()).revoked == frozenset()


@pytest.mark.parametrize("text", ["", "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----", "half"])
def test_what_is_no_list_is_an_error(text: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        read_lists(text)


def test_the_end_of_a_certificate_is_read(tmp_path: Path) -> None:
    path, _ = Authority(tmp_path).issue("a", days=7)
    assert validity(der(path)) == pytest.approx((time.time() - 30 * DAY, time.time() + 7 * DAY), abs=60)


def test_a_list_without_authorities_is_refused() -> None:
    files = {"cert": "c", "key": "k"}
    assert server_files({**files, "client_ca": "a", "crl": "l"}) is None
    assert "crl needs client_ca" in str(server_files({**files, "crl": "l"}))
