"""The doctor's checks of connections over a network: the broker's listener, and the certificate of the clients here."""

from __future__ import annotations

from collections.abc import Iterator

from snakepit.pools.broker.node_status import ListenerStatus, ends_soon
from snakepit.pools.diagnostics.checks import ok, problem, warning
from snakepit.pools.diagnostics.facts import SystemFacts, Unknown
from snakepit.pools.diagnostics.finding import Finding
from snakepit.pools.listening import ListenAddress

DAY, HOUR = 86_400.0, 3600.0  # seconds


def network(facts: SystemFacts) -> Iterator[Finding]:
    """Network addresses have TLS, with certificates and revocation lists that are in force and do not end soon."""
    if isinstance(facts.broker, Unknown):
        return  # the check of the broker has the reason
    node = facts.broker.node
    now = node.started_at + node.uptime
    for one in node.listeners:
        if one.tls == "none":
            yield _plain(one)
        elif one.problem:
            yield problem("network", one.problem, "Correct the file: the broker reads it again by itself.")
        else:
            found = [finding for finding in _ends(one, now) if finding is not None]
            days = (one.certificate_expires - now) / DAY
            fine = f"{one.address}: TLS: {one.tls}, the certificate ends in {days:.0f} days"
            yield from found or (ok("network", f"{fine}, {one.connections} connections"),)


def client_certificate(facts: SystemFacts) -> Iterator[Finding]:
    """The certificate of this project's clients (BROKER_TLS) is in force and does not end soon."""
    name, known = "client certificate", facts.client_certificate
    if known is None:
        return
    if isinstance(known, Unknown):
        yield problem(name, known.reason, "Correct BROKER_TLS.")
        return
    where, days = f"BROKER_TLS: cert {known.path}", (known.expires - facts.now) / DAY
    if known.trouble:
        yield problem(name, f"{where}: {known.trouble}", "Correct the file: clients read it at each connect.")
    elif days <= 0:
        yield problem(name, f"{where} has ended: brokers refuse it", "Renew it: clients read it at each connect.")
    elif ends_soon(known.issued, known.expires, facts.now):
        yield warning(name, f"{where} ends in {days:.1f} days", "Renew it: clients read it at each connect.")
    else:
        yield ok(name, f"{where} ends in {days:.0f} days")


def _plain(one: ListenerStatus) -> Finding:
    if one.problem:
        return problem("network", one.problem, "Correct the file: the broker reads it again by itself.")
    if ListenAddress.parse(one.address).is_loopback:
        return ok("network", f"{one.address}: no TLS, {one.connections} connections")
    fix = "Set LISTEN_TLS, unless the network itself encrypts (docs/howto/several-machines.md)."
    return warning("network", f"{one.address} takes calls without TLS: keys and data can be read on the network", fix)


def _ends(one: ListenerStatus, now: float) -> Iterator[Finding | None]:
    """What ends soon or has ended."""
    name, days = one.address, (one.certificate_expires - now) / DAY
    if ends_soon(one.certificate_issued, one.certificate_expires, now):
        evidence = f"the certificate of {name} ends in {days:.1f} days" if days > 0 else f"that of {name} has ended"
        make = warning if days > 0 else problem
        yield make("network", evidence, "Renew it: the broker reads the new file without a restart.")
    if one.authorities_expire and ends_soon(one.authorities_issued, one.authorities_expire, now):
        days = (one.authorities_expire - now) / DAY
        if days > 0:
            evidence = f"a certificate in client_ca of {name} ends in {days:.1f} days; then its clients are refused"
        else:
            evidence = f"every certificate in client_ca of {name} has ended: clients are refused"
        make = warning if days > 0 else problem
        yield make("network", evidence, "Add its successor to client_ca: the broker reads the file by itself.")
    if one.lists_end_soon(now):
        hours = (one.lists_expire - now) / HOUR
        evidence = (
            f"a revocation list of {name} expires in {hours:.1f} h; then no certificate of its authority is valid"
        )
        yield warning("network", evidence, "Let the authority write a new list (crl): the broker reads it by itself.")
