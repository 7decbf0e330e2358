"""The checks of `snakepit doctor --security`: each is a pure function from facts to findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from snakepit.pools.diagnostics.checks import ok, problem, skipped, warning
from snakepit.pools.diagnostics.facts import Unknown
from snakepit.pools.diagnostics.finding import Finding
from snakepit.pools.diagnostics.security_facts import ProcessFacts, RevocationFacts, SecurityFacts

SecurityCheck = Callable[[SecurityFacts], Iterator[Finding]]
TRUST = "docs/explanation/trust.md"
# DEBUG, a weak SECRET_KEY or ALLOWED_HOSTS with * expose the site; the other warnings weaken it.
CRITICAL = {"security.W009", "security.W018", "security.W020", "security.W025"}
LONG_UNUSED = 90.0  # days
ENDS_SOON = 7.0  # days; both keys of a rotation are valid for this time
LIST_ENDS_SOON = 1.0  # days; authorities often write lists for a week
NAMES_OF_TLS = {"mutual": "mutual TLS", "server": "TLS with an API key", "none": "no TLS"}


def deployment(facts: SecurityFacts) -> Iterator[Finding]:
    """What `manage.py check --deploy` finds."""
    known = facts.deploy
    if isinstance(known, Unknown):
        yield skipped("deployment", known.reason)
        return
    for name, message, hint in known.warnings:
        made = problem if name in CRITICAL else warning
        yield made("deployment", f"{name}: {message}", hint or "See docs/howto/deploy.md.")
    if not known.warnings:
        yield ok("deployment", "manage.py check --deploy finds nothing")


def pages(facts: SecurityFacts) -> Iterator[Finding]:
    """A Content-Security-Policy, and headers of named proxies only."""
    known = facts.deploy
    if isinstance(known, Unknown):
        yield skipped("proxies", known.reason)
        return
    if known.has_policy:
        yield ok("content policy", "a middleware sets a Content-Security-Policy on every page")
    else:
        fix = "Add snakepit.pools.middleware.ContentSecurityPolicy, or Django's own, to MIDDLEWARE."
        yield warning("content policy", "no middleware sets a Content-Security-Policy", fix)
    if not known.reads_proxies:
        fix = "Put snakepit.pools.middleware.TrustedProxies first in MIDDLEWARE, and name the proxies."
        if known.trusts_tls_header:
            yield problem("proxies", "each client can claim by a header that it uses TLS", fix)
        else:
            yield warning("proxies", "headers of proxies are not checked; the web server may accept some", fix)
    elif known.redirects_to_tls and not known.proxies:
        fix = "Set SNAKEPIT['TRUSTED_PROXIES'] (SNAKEPIT_PROXIES) to the proxy that terminates TLS."
        yield warning("proxies", "pages redirect to HTTPS, and no proxy is named that can report it", fix)
    else:
        named = ", ".join(known.proxies) or "none: all headers of proxies are dropped"
        yield ok("proxies", f"trusted: {named}")


def runtime(facts: SecurityFacts) -> Iterator[Finding]:
    """The directory with socket and token is closed to other users."""
    if isinstance(facts.runtime, Unknown):
        yield skipped("runtime directory", facts.runtime.reason)
        return
    found = [one for one in facts.runtime if one.exists]
    if not found:
        yield skipped("runtime directory", f"{facts.runtime[0].path} does not exist: no broker has run here")
        return
    wrong = [one for one in found if one.mode & 0o077]
    for one in wrong:
        yield problem(
            "runtime directory",
            f"{one.path} has mode {one.mode:04o}",
            f"chmod go= {one.path}; then restart the broker.",
        )
    if not wrong:
        yield ok("runtime directory", ", ".join(f"{one.path} {one.mode:04o} of user {one.owner}" for one in found))


def broker(facts: SecurityFacts) -> Iterator[Finding]:
    """The broker's memory and environment are closed."""
    known = facts.broker
    if isinstance(known, Unknown):
        yield skipped("broker process", known.reason)
        return
    own = known.process
    shown = known.secrets
    if known.closed is False:
        yield problem(
            "broker process",
            f"processes of user {own.uid} can read the memory of the broker (pid {own.pid})",
            "Restart it with this release; docs/explanation/trust.md.",
        )
    elif not isinstance(shown, Unknown) and shown:
        yield problem(
            "broker process",
            f"/proc/{own.pid}/environ shows {', '.join(shown)}",
            "Start it with `snakepit broker`, which erases them there.",
        )
    elif known.closed is None:
        yield warning(
            "broker process",
            f"it runs as root (pid {own.pid}), which can read all processes; its environment shows no secret",
            f"Run it as a user of its own: {TRUST}.",
        )
    else:
        yield ok("broker process", f"user {own.uid}, pid {own.pid}: memory and environment are closed")


def workers(facts: SecurityFacts) -> Iterator[Finding]:
    """Workers run as another user, without privileges."""
    if isinstance(facts.workers, Unknown) or isinstance(facts.broker, Unknown):
        reason = facts.workers if isinstance(facts.workers, Unknown) else facts.broker
        yield skipped("worker user", reason.reason if isinstance(reason, Unknown) else "")
        return
    wanted = "" if isinstance(facts.environment, Unknown) else facts.environment.worker_user
    if not facts.workers:
        yield skipped("worker user", "no worker runs")
        return
    same = [one for one in facts.workers if one.uid == facts.broker.process.uid]
    privileged = [one for one in facts.workers if one.uid != facts.broker.process.uid and one.capabilities]
    fix = f"Set SNAKEPIT['WORKER_USER'] and restart the broker: {TRUST}."
    if same and wanted:
        names = ", ".join(one.name for one in same)
        yield problem("worker user", f"{names} run as user {same[0].uid}, not as {wanted}", "Restart the broker.")
    elif same:
        evidence = f"{len(same)} workers run as the broker's user {same[0].uid}{_reached(same)}"
        yield warning("worker user", evidence, f"{fix} Or close their network and files with `sandbox` of the pool.")
    if privileged:
        yield problem("worker user", f"{privileged[0].name} has capabilities {privileged[0].capabilities:x}", fix)
    open_ = [one for one in facts.workers if one not in same and not one.no_new_privs]
    if open_:
        yield problem("worker user", f"{open_[0].name} can gain privileges by set-user-id programs", fix)
    if not (same or privileged or open_):
        users = ", ".join(sorted({str(one.uid) for one in facts.workers}))
        known = f"{len(facts.workers)} workers run as user {users}, with no capability or new privileges"
        yield ok("worker user", known + _reached(facts.workers))


def reach(facts: SecurityFacts) -> Iterator[Finding]:
    """What an adapter can read."""
    if isinstance(facts.reach, Unknown):
        yield skipped("adapter code", facts.reach.reason)
        return
    for one in facts.reach:
        if one.readable:
            fix = f"Set SNAKEPIT['WORKER_USER'], or close it: chmod o= {one.path}; {TRUST}."
            yield warning("adapter code", f"user {one.uid} can read the {one.what}: {one.path}", fix)
    if closed := [f"{one.what} {one.path}" for one in facts.reach if not one.readable]:
        yield ok("adapter code", f"cannot read: {', '.join(closed)}")


def sandbox(facts: SecurityFacts) -> Iterator[Finding]:
    """What the kernel keeps from workers by the `sandbox` of their pools."""
    if isinstance(facts.workers, Unknown):
        return  # the check of the workers' user gives the reason
    false = [one for one in facts.workers if one.network_closed and one.shares_network]
    for one in false:
        yield problem("sandbox", f"{one.name} reports no network, and has the broker's", "Restart the broker.")
    if closed := [f"{one.name}: {one.sandbox}" for one in facts.workers if one.sandbox and one not in false]:
        yield ok("sandbox", f"the kernel closes {_some(closed)}")


def _reached(workers: Iterable[ProcessFacts]) -> str:
    """What the kernel leaves open to workers, by the `sandbox` of their pools; empty: nothing."""
    network = [one.name for one in workers if not one.network_closed]
    files = [one.name for one in workers if not one.files_closed]
    open_to = (("the network", network), ("all files of their user", files))
    return "".join(f"; {what} open to {_some(names)}" for what, names in open_to if names)


def environment(facts: SecurityFacts) -> Iterator[Finding]:
    """No secret goes to the workers, and rows cannot set what selects code."""
    known = facts.environment
    if isinstance(known, Unknown):
        yield skipped("worker environment", known.reason)
        return
    if known.passed:
        yield warning(
            "worker environment",
            f"WORKER_ENV passes on what looks like secrets: {', '.join(known.passed)}",
            "Pass on only what each adapter needs.",
        )
    if known.allowed:
        yield problem(
            "worker environment",
            f"rows may set {', '.join(known.allowed)}, which can select the code that runs",
            "Take them out of WORKER_ENV_ALLOWED; set them in SNAKEPIT['POOLS'] instead.",
        )
    if not (known.passed or known.allowed):
        yield ok("worker environment", "no secret is passed on, and rows can set no variable that selects code")


def keys(facts: SecurityFacts) -> Iterator[Finding]:
    """API keys expire, and are used."""
    if isinstance(facts.keys, Unknown):
        yield skipped("API keys", facts.keys.reason)
        return
    endless = [one.name for one in facts.keys if one.days_left is None]
    unused = [one.name for one in facts.keys if one.unused_days > LONG_UNUSED]
    if endless:
        fix = "Set an expiry in the admin, and rotate them: docs/howto/operate.md."
        yield warning("API keys", f"{len(endless)} of {len(facts.keys)} do not expire: {_some(endless)}", fix)
    if unused:
        fix = "Revoke what is not needed."
        yield warning("API keys", f"not used for {LONG_UNUSED:.0f} days: {_some(unused)}", fix)
    if not endless and not unused:
        yield ok("API keys", f"{len(facts.keys)} usable; all expire, and all were used lately")


def rotation(facts: SecurityFacts) -> Iterator[Finding]:
    """Keys that end soon have a successor, and a rotation ends."""
    if isinstance(facts.keys, Unknown):
        return  # the check of the keys gives the reason
    soon = [one for one in facts.keys if one.days_left is not None and one.days_left < ENDS_SOON and not one.successor]
    used = [f"{one.name} in {one.days_left:.1f} days" for one in soon if one.unused_days <= LONG_UNUSED]
    replaced = [one for one in facts.keys if one.successor]
    endless = [f"{one.name} beside {one.successor}" for one in replaced if one.days_left is None]
    if used:
        fix = "Rotate it: both keys are valid for up to 7 days (snakepit keys rotate PREFIX, or the admin)."
        yield warning("key rotation", f"keys in use end soon: {_some(used)}", fix)
    if endless:
        fix = "Revoke the older key once nothing uses it: snakepit keys revoke PREFIX."
        yield warning("key rotation", f"two keys of one name, and the older has no end: {_some(endless)}", fix)
    if used or endless:
        return
    both = [f"{one.name} for {one.days_left or 0:.1f} days beside {one.successor}" for one in replaced]
    ends = [one.days_left for one in facts.keys if one.days_left is not None and not one.successor]
    next_ = f"the next key ends in {min(ends):.0f} days" if ends else "no key ends"
    yield ok("key rotation", f"valid with their successors: {_some(both)}" if both else f"none under way; {next_}")


def network(facts: SecurityFacts) -> Iterator[Finding]:
    """Network addresses of the broker ask for TLS, and revoked certificates of clients are refused."""
    known = facts.network
    if isinstance(known, Unknown):
        yield skipped("network", known.reason)
        return
    if not known.listeners:
        yield ok("network", "the broker listens on its Unix socket only")
        return
    fine = []
    for one in known.listeners:
        if one.trouble:
            yield problem("network", one.trouble, "Correct the file: the broker reads it again by itself.")
        elif one.tls == "none" and not one.loopback:
            fix = "Set LISTEN_TLS: docs/howto/several-machines.md."
            yield problem("network", f"{one.address} takes calls without TLS: others can read keys and data", fix)
        elif one.tls != "none" and one.days_left <= 0:
            yield problem("network", f"the certificate of {one.address} has ended", "Renew it.")
        else:
            ends = f", certificate for {one.days_left:.0f} days" if one.tls != "none" else ""
            fine.append(f"{one.address}: {NAMES_OF_TLS[one.tls]}{ends}")
    if fine:
        yield ok("network", _some(fine))
    if any(one.tls == "mutual" for one in known.listeners):
        yield _revocation(known.revocation)


def _revocation(known: RevocationFacts | Unknown | None) -> Finding:
    name = "revocation lists"
    if known is None:
        fix = "Set LISTEN_TLS['crl'] if your authority writes revocation lists; else give clients short certificates."
        return warning(name, "none: a stolen client certificate is accepted until it ends", fix)
    if isinstance(known, Unknown):
        return problem(name, known.reason, "Correct LISTEN_TLS['crl'].")
    found = f"{known.path}: {known.revoked} revoked"
    if known.days_left is None:
        return ok(name, f"{found}, without an end")
    if known.days_left <= 0:
        return problem(name, f"{found}; a list has expired, so its certificates are refused", "Renew the list.")
    if known.days_left < LIST_ENDS_SOON:
        return warning(name, f"{found}; a list expires in {known.days_left:.1f} days", "Renew the list.")
    return ok(name, f"{found}; the next list expires in {known.days_left:.1f} days")


def limits(facts: SecurityFacts) -> Iterator[Finding]:
    """Each caller has limits, so that none takes the share of others."""
    known = facts.limits
    if isinstance(known, Unknown):
        yield skipped("caller limits", known.reason)
        return
    if off := [*known.settings, *known.keys]:
        fix = "Set a limit: docs/reference/limits.md#callers."
        yield warning("caller limits", f"a caller may take everything: {_some(off)}", fix)
    else:
        own = f"{known.number} keys have limits of their own" if known.number else "no key has limits of its own"
        yield ok("caller limits", f"keys and owners have limits of calls, streams and queues; {own}")


def services(facts: SecurityFacts) -> Iterator[Finding]:
    """Database and messages ask for a password, and messages cannot run code."""
    known = facts.services
    if isinstance(known, Unknown):
        yield skipped("services", known.reason)
        return
    if known.database_password is False:
        yield warning("database", f"{known.database} is used without a password", "Set one.")
    elif not known.database_encrypted:
        yield warning("database", f"{known.database} is reached without TLS", "Add ?sslmode=verify-full to its URL.")
    else:
        yield ok("database", known.database)
    if known.unsafe_content:
        names = ", ".join(known.unsafe_content)
        yield problem(
            "messages",
            f"Celery accepts {names}, which can run code",
            'Set accept_content to ["json"] in the Celery app.',
        )
    if known.messages_password is False:
        yield warning(
            "messages", f"{known.messages} is used without a password", "Set requirepass, and put it into the URL."
        )
    elif not known.unsafe_content:
        yield ok("messages", known.messages)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


CHECKS: tuple[SecurityCheck, ...] = (
    deployment, pages, runtime, broker, workers, reach, sandbox, environment, keys, rotation, limits, network,
    services,
)  # fmt: skip
