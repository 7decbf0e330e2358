"""TLS of one accepted connection, over a plain transport, by the standard library's MemoryBIO.

asyncio and uvloop drop the alert of a failed handshake, so a client would only see a closed connection. Here the alert
is sent, and the client's error has the reason: a certificate that is missing, expired, or of another authority.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Any, cast

READ_BYTES = 1 << 18
LINGER = 1.0  # seconds for the client to read an alert: bytes that it still sends would otherwise destroy it
MOST_BEFORE = 1 << 16  # bytes of a handshake


class HandshakeFailed(Exception):
    """The TLS handshake of a client failed; `reason` is a label of metrics."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def reason_of(error: BaseException) -> str:
    """The label of a failed handshake: what is wrong with the client's certificate, or with the connection."""
    message = str(getattr(error, "verify_message", "") or "").lower()
    if "revoked" in message:
        return "certificate_revoked"
    if "crl" in message:  # of the authority there is no list, or it has expired
        return "revocation_list"
    if "expired" in message:
        return "certificate_expired"
    if message:
        return "certificate_untrusted"
    name = str(getattr(error, "reason", "") or "")
    if name == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "certificate_missing"
    if name in ("UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW"):
        return "tls_version"
    if "ALERT" in name:  # the client does not accept the broker's certificate
        return "refused_by_client"
    return "not_tls" if name in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST") else "handshake"


class TlsProtocol(asyncio.Protocol):
    """Between the plain transport and the protocol of HTTP/2. `ready` ends with the handshake, or has its failure."""

    def __init__(self, context: ssl.SSLContext, make: Callable[[], Any], timeout: float) -> None:
        self._make = make
        self._context = context
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[Any] = loop.create_future()
        self._timer = loop.call_later(timeout, self._late, timeout)
        self._received = 0
        self._raw: Any = None
        self._writable = True
        self.inner: Any = None  # the protocol of HTTP/2, once the handshake has ended
        self.transport: TlsTransport | None = None

    # Called by the plain transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = transport

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        if self.inner is not None:
            self._read()
        elif not self.ready.done():
            self._received += len(data)
            self._handshake()
        else:
            self._incoming.read()  # it failed, and the client has not read that yet

    def eof_received(self) -> bool | None:
        return None if self.inner is None else cast("bool | None", self.inner.eof_received())

    def pause_writing(self) -> None:
        self._writable = False
        if self.inner is not None:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        self._writable = True
        if self.inner is not None:
            self.inner.resume_writing()

    def connection_lost(self, error: BaseException | None) -> None:
        self._timer.cancel()
        if not self.ready.done():
            self.ready.set_exception(HandshakeFailed("closed_by_client", "the client closed the connection"))
        if self.inner is not None:
            self.inner.connection_lost(error)

    # The handshake

    def _handshake(self) -> None:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            if self._received > MOST_BEFORE:
                self._fail("handshake", f"more than {MOST_BEFORE} bytes came before the end of the handshake")
            return
        except ssl.SSLError as error:
            self._flush()  # the alert
            self._fail(reason_of(error), str(getattr(error, "verify_message", "") or error.reason or error))
            return
        self._flush()
        if self.tls.selected_alpn_protocol() != "h2":
            self._fail("not_http2", "the client did not offer HTTP/2 (ALPN h2)")
            return
        self._timer.cancel()
        self.inner = self._make()
        self.transport = TlsTransport(self, self._raw, self._context)
        self.inner.connection_made(self.transport)
        if not self._writable:
            self.inner.pause_writing()
        self.ready.set_result(self.inner)
        self._read()

    def _late(self, timeout: float) -> None:
        self._fail("timeout", f"the handshake did not end within {timeout:g} s")

    def _fail(self, reason: str, message: str) -> None:
        self._timer.cancel()
        if not self.ready.done():
            self.ready.set_exception(HandshakeFailed(reason, message))
        if not self._raw.is_closing():
            if self._raw.can_write_eof():
                self._raw.write_eof()
            asyncio.get_running_loop().call_later(LINGER, self._raw.abort)

    # Data

    def _flush(self) -> None:
        if self._outgoing.pending and not self._raw.is_closing():
            self._raw.write(self._outgoing.read())

    def _read(self) -> None:
        try:
            while data := self.tls.read(READ_BYTES):
                self.inner.data_received(data)
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLZeroReturnError:
            pass
        except ssl.SSLError:
            self._flush()
            self._raw.abort()
            return
        self._raw.close()  # the peer ended TLS

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._raw.is_closing():
            self.tls.write(data)
            self._flush()

    def close(self) -> None:
        """Send the end of TLS, and close once all is written."""
        if not self._raw.is_closing():
            with contextlib.suppress(ssl.SSLError):  # the peer has not sent its end yet
                self.tls.unwrap()
            self._flush()
            self._raw.close()


class TlsTransport(asyncio.Transport):
    """The transport that the protocol of HTTP/2 uses."""

    def __init__(self, protocol: TlsProtocol, raw: Any, context: ssl.SSLContext) -> None:
        super().__init__({"sslcontext": context, "ssl_object": protocol.tls})
        self._protocol = protocol
        self._raw = raw

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        own = super().get_extra_info(name)
        return self._raw.get_extra_info(name, default) if own is None else own

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol.inner = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast(asyncio.BaseProtocol, self._protocol.inner)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._protocol.write(data)

    def is_closing(self) -> bool:
        return cast(bool, self._raw.is_closing())

    def close(self) -> None:
        self._protocol.close()

    def abort(self) -> None:
        self._raw.abort()

    def pause_reading(self) -> None:
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._raw.resume_reading()

    def can_write_eof(self) -> bool:
        return False
