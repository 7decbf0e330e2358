"""The listener that the settings of a Django project describe."""

from __future__ import annotations

from snakepit.pools import conf
from snakepit.pools.adapters.network.database_keys import DatabaseKeys
from snakepit.pools.adapters.network.identity import certificate_rights
from snakepit.pools.adapters.network.listener import NO_LISTENER, ListenConfig
from snakepit.pools.adapters.network.tls import TlsFiles


def listen_config() -> ListenConfig:
    settings = conf.current()
    if not settings.listen:
        return NO_LISTENER
    files = settings.listen_tls
    return ListenConfig(
        addresses=settings.listen,
        tls=TlsFiles(**files) if files else None,
        certificates=certificate_rights(settings.listen_certificates, conf.key_limits()),
        keys=DatabaseKeys(),
        key_share=settings.key_share,
        connections=settings.listen_connections,
        connections_per_host=settings.listen_connections_per_host,
        streams=settings.listen_streams,
        handshake_timeout=settings.listen_handshake_timeout,
        login_timeout=settings.listen_login_timeout,
    )
