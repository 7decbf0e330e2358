"""The facts that the security checks judge: plain values, gathered before; `Unknown` for a part that failed."""

from __future__ import annotations

from dataclasses import dataclass

from snakepit.pools.diagnostics.facts import FileFacts, Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployFacts:
    """How the site is set up for browsers and proxies."""

    warnings: tuple[tuple[str, str, str], ...]  # of `manage.py check --deploy`: id, message, hint
    redirects_to_tls: bool
    trusts_tls_header: bool  # SECURE_PROXY_SSL_HEADER is set
    reads_proxies: bool  # the middleware TrustedProxies is there
    proxies: tuple[str, ...]
    has_policy: bool  # a middleware sets a Content-Security-Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    """A process, as the kernel shows it."""

    name: str  # broker, or a worker's id
    pid: int
    uid: int
    no_new_privs: bool
    capabilities: int  # effective ones, as bits
    sandbox: str = ""  # what a worker reports that the kernel keeps from it; empty: nothing
    shares_network: bool | None = None  # it is in the broker's network; None: not known

    @property
    def network_closed(self) -> bool:
        return "network" in self.sandbox

    @property
    def files_closed(self) -> bool:
        return "files" in self.sandbox


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerProcessFacts:
    process: ProcessFacts
    closed: bool | None  # others of its user cannot read its memory; None: a root process, which shows no difference
    secrets: tuple[str, ...] | Unknown  # variables in its shown environment that look like secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachFacts:
    """What a worker's user can read."""

    uid: int
    what: str  # token, database file, ...
    path: str
    readable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentFacts:
    worker_user: str  # of the settings; empty: the broker's
    passed: tuple[str, ...]  # names in WORKER_ENV that look like secrets
    allowed: tuple[str, ...]  # names and prefixes in WORKER_ENV_ALLOWED that can select code


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFacts:
    name: str
    days_left: float | None  # None: it does not expire
    unused_days: float  # since its last use, or since it was made
    successor: str = ""  # a newer key of the same name and owner: this one is being rotated


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerFacts:
    """One network address of the broker."""

    address: str
    loopback: bool
    tls: str  # mutual, server or none
    days_left: float  # of the broker's certificate
    trouble: str  # why its files are not in force; empty: they are


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationFacts:
    """The revocation lists of clients' certificates."""

    path: str
    revoked: int
    days_left: float | None  # until the first list expires; None: none does


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFacts:
    listeners: tuple[ListenerFacts, ...]
    revocation: RevocationFacts | Unknown | None  # None: the settings name no lists


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitFacts:
    """Limits of callers that are switched off."""

    settings: tuple[str, ...]  # such as KEY_LIMITS["streams"]
    keys: tuple[str, ...]  # such as `ci (snk_1): streams`
    number: int  # of keys with limits of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFacts:
    database: str  # engine and place, without a password
    database_password: bool | None  # None: a file
    database_encrypted: bool  # or local
    messages: str  # Celery's transport, without a password
    messages_password: bool | None  # None: it has none, such as files or a Unix socket
    unsafe_content: tuple[str, ...]  # serializers that Celery accepts and that run code


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityFacts:
    deploy: DeployFacts | Unknown
    runtime: tuple[FileFacts, ...] | Unknown  # directory, socket, token
    user: int
    broker: BrokerProcessFacts | Unknown
    workers: tuple[ProcessFacts, ...] | Unknown
    reach: tuple[ReachFacts, ...] | Unknown
    environment: EnvironmentFacts | Unknown
    keys: tuple[KeyFacts, ...] | Unknown
    network: NetworkFacts | Unknown
    limits: LimitFacts | Unknown
    services: ServiceFacts | Unknown
