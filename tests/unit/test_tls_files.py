"""The files of TLS, of a broker and of a client: what can be read, and what each refusal says."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from snakepit.pools.adapters.network.certificate_file import read_certificate
from snakepit.pools.adapters.network.tls import ServerTls, TlsError, TlsFiles, load
from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.client import Tls
from tests.certificates import Authority

DAY = 86_400.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def changed(path: str, change: Callable[[bytes], bytes]) -> str:
    """A copy of a file with other content."""
    copy = Path(f"{path}.changed")
    copy.write_bytes(change(Path(path).read_bytes()))
    return str(copy)


def under(label: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(b"CERTIFICATE", label + b" CERTIFICATE")


def after_a_name(content: bytes) -> bytes:
    """As `openssl x509 -text` writes it, with a name in an old encoding before the certificate."""
    return "Subject: CN=Müller\n".encode("latin-1") + content


@pytest.mark.parametrize("change", [under(b"X509"), under(b"TRUSTED"), after_a_name])
def test_a_certificate_that_openssl_takes_has_its_dates(authority: Authority, change: Callable[[bytes], bytes]) -> None:
    path, key = authority.issue("server", days=7)
    files = TlsFiles(changed(path, change), key, changed(str(authority.path), change))
    loaded = load(files)
    assert loaded.own[1] == pytest.approx(time.time() + 7 * DAY, abs=60)
    assert loaded.authorities[0][1] == pytest.approx(time.time() + 10 * DAY, abs=60)
    assert read_certificate(files.cert).expires == loaded.own[1]


def test_a_certificate_that_is_listed_is_known_under_each_label(authority: Authority) -> None:
    (server, key), (client, _) = authority.issue("server"), authority.issue("client")
    plain = load(TlsFiles(server, key, client)).trusted
    assert load(TlsFiles(server, key, changed(client, under(b"X509")))).trusted == plain


def test_a_key_with_a_passphrase_is_refused_and_nothing_is_asked(authority: Authority) -> None:
    cert, path = authority.issue("server")
    key = serialization.load_pem_private_key(Path(path).read_bytes(), None)
    Path(path).write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(TlsError, match=r"server\.key: the key has a passphrase"):
        load(TlsFiles(cert, path))
    with pytest.raises(BadRequest, match="the key has a passphrase"):
        Tls(str(authority.path), cert, path).context()


@pytest.mark.parametrize("broken", ["cert", "key", "client_ca"])
def test_half_a_file_is_named(authority: Authority, broken: str) -> None:
    cert, key = authority.issue("server")
    paths = {"cert": cert, "key": key, "client_ca": str(authority.path)}
    paths[broken] = changed(paths[broken], lambda content: content[:100])
    with pytest.raises(TlsError) as caught:
        load(TlsFiles(**paths))
    assert paths[broken] in str(caught.value)
    assert "pem lib" not in str(caught.value)


def test_any_file_that_cannot_be_used_leaves_the_last_one_in_force(authority: Authority) -> None:
    cert, key = authority.issue("server")
    tls = ServerTls(TlsFiles(cert, key, str(authority.path)))
    last = tls.loaded
    for content in (b"", b"\xff\xfe", Path(cert).read_bytes()[:300]):
        Path(cert).write_bytes(content)
        assert tls.reload() == frozenset()
        assert cert in tls.problem(time.time())
        assert tls.loaded is last
