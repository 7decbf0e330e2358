"""The site's Django settings, from environment variables. The app `snakepit.pools` reads only SNAKEPIT_LISTEN.

SNAKEPIT_DEBUG          1: debug pages; 0: production, needs a secret key; not set: no debug pages, generated key
SNAKEPIT_SECRET_KEY     required with SNAKEPIT_DEBUG=0; otherwise generated and stored in the state directory
SNAKEPIT_ALLOWED_HOSTS  comma-separated [localhost]
SNAKEPIT_TLS            1: browsers use HTTPS: secure cookies, redirect to HTTPS, HSTS [1 with SNAKEPIT_DEBUG=0, else 0]
SNAKEPIT_HSTS_SECONDS   how long browsers then use HTTPS only, for all subdomains [31536000; 0: no HSTS]
SNAKEPIT_PROXIES        comma-separated addresses or networks of proxies whose X-Forwarded-* headers count, or `unix`
SNAKEPIT_CSRF_ORIGINS   comma-separated origins with scheme, for a proxy that changes the host
SNAKEPIT_STATE_DIR      SQLite file, secret key, static files [.snakepit in the clone; installed: current directory]
SNAKEPIT_DATABASE_URL   sqlite:////path or postgres://user:password@host:port/name [SQLite in the state directory]
SNAKEPIT_RUNTIME_DIR    directory of the broker's sockets and token
SNAKEPIT_NODE_NAME      name of this node
SNAKEPIT_WORKER_USER    user that workers run as: a name or a number [the broker's user]
SNAKEPIT_WORKER_GROUPS  comma-separated supplementary groups of that user's workers
SNAKEPIT_LISTEN         comma-separated network addresses of the broker, such as 0.0.0.0:7443
SNAKEPIT_LISTEN_CERT, SNAKEPIT_LISTEN_KEY, SNAKEPIT_LISTEN_CLIENT_CA  its PEM files: LISTEN_TLS
SNAKEPIT_LISTEN_CLIENTS comma-separated names in client certificates that may use all pools: LISTEN_CERTIFICATES
SNAKEPIT_ADVERTISE      comma-separated addresses by which other hosts reach the broker
SNAKEPIT_TLS_CA, SNAKEPIT_TLS_CERT, SNAKEPIT_TLS_KEY, SNAKEPIT_TOKEN  PEM files and API key for brokers on a network
SNAKEPIT_DEMO           1: the three demo pools [1 beside a running `snakepit up --demo`, otherwise 0]
SNAKEPIT_DEMO_TOKEN     secret of the demo's one-click login
SNAKEPIT_REDIS_URL, SNAKEPIT_CELERY_URL  see snakepit.pools.celery_setup
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
# When installed, BASE_DIR is site-packages: an upgrade could delete a database there.
_home = BASE_DIR if (BASE_DIR / "manage.py").exists() else Path.cwd()
STATE_DIR = Path(os.environ.get("SNAKEPIT_STATE_DIR") or _home / ".snakepit").absolute()


def _flag(name: str) -> bool:
    value = os.environ.get(name, "").lower()
    if value not in ("", "0", "1", "false", "true", "no", "yes", "off", "on"):
        raise ImproperlyConfigured(f"{name} is {value!r}; set it to 1 or 0")
    return value in ("1", "true", "yes", "on")


def _words(name: str, default: str = "") -> list[str]:
    return [word for one in os.environ.get(name, default).split(",") if (word := one.strip())]


def _seconds(name: str, default: int) -> int:
    value = os.environ.get(name) or str(default)
    if not value.isdecimal():
        raise ImproperlyConfigured(f"{name} is {value!r}; set it to a number of seconds")
    return int(value)


def _secret_key() -> str:
    given = os.environ.get("SNAKEPIT_SECRET_KEY", "")
    if given:
        return given
    if os.environ.get("SNAKEPIT_DEBUG") and not DEBUG:
        raise ImproperlyConfigured("SNAKEPIT_DEBUG=0 (production) needs SNAKEPIT_SECRET_KEY")
    kept = STATE_DIR / "secret_key"
    if not kept.exists():
        # Written to a draft and linked, so that processes that start together read the same, complete key.
        draft = STATE_DIR / f"secret_key.{os.getpid()}"
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(50))
        with suppress(FileExistsError):
            os.link(draft, kept)
        draft.unlink()
    return kept.read_text()


def _database(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme in ("postgres", "postgresql"):
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": unquote(parts.path.lstrip("/")),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": unquote(parts.hostname or ""),
            "PORT": str(parts.port or ""),
            # ?host=/directory for a Unix socket. The timeout bounds each page while a server accepts and stays silent.
            "OPTIONS": {"connect_timeout": 2, **dict(parse_qsl(parts.query))},
            # Under ASGI each request has its own thread: a connection that outlives its request would leak.
            "CONN_MAX_AGE": 0,
            "CONN_HEALTH_CHECKS": True,
        }
    if parts.scheme != "sqlite":
        raise ImproperlyConfigured("SNAKEPIT_DATABASE_URL must begin with sqlite:///, postgres:// or postgresql://")
    # As usual in database URLs: three slashes begin a relative path, four an absolute one.
    path = BASE_DIR / unquote(parts.path[1:]) if parts.path.strip("/") else STATE_DIR / "db.sqlite3"
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        # For tests: a file, because threads share it, with the pid in its name, because two test runs must not.
        "TEST": {"NAME": str(path.with_name(f"test-{os.getpid()}-{path.name}"))},
        # Writers wait for the lock when they begin; with the default DEFERRED, they fail when they write.
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            # Python keeps 128 prepared statements of a connection, 20 to 50 KB each: a Celery worker, whose connections
            # stay open, grows by megabytes for an hour. To prepare one again takes 50 µs.
            "cached_statements": 24,
        },
    }


STATE_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
DEBUG = _flag("SNAKEPIT_DEBUG")
SECRET_KEY = _secret_key()
ALLOWED_HOSTS = _words("SNAKEPIT_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = _words("SNAKEPIT_CSRF_ORIGINS")

# TLS. TrustedProxies drops the header of peers that are no named proxy.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
PRODUCTION = bool(os.environ.get("SNAKEPIT_DEBUG")) and not DEBUG
TLS = _flag("SNAKEPIT_TLS") if os.environ.get("SNAKEPIT_TLS") else PRODUCTION
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = TLS
# Programs do not follow a redirect of a POST, and probes come without TLS.
SECURE_REDIRECT_EXEMPT = [r"^api/"]
SECURE_HSTS_SECONDS = _seconds("SNAKEPIT_HSTS_SECONDS", 31_536_000) if TLS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = SECURE_HSTS_SECONDS > 0

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "ninja",  # serves the files of the API page, which otherwise come from another host
    "snakepit.pools",
]
# The extra `serve` installs it. Without it snakepit.site.urls serves the static files, which is slower.
WHITENOISE = find_spec("whitenoise") is not None
MIDDLEWARE = [
    "snakepit.pools.middleware.TrustedProxies",
    "snakepit.pools.middleware.HostCheck",
    "django.middleware.security.SecurityMiddleware",
    *(["whitenoise.middleware.WhiteNoiseMiddleware"] if WHITENOISE else []),
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "snakepit.pools.middleware.ContentSecurityPolicy",
    "snakepit.pools.middleware.DatabaseAway",
]
ROOT_URLCONF = "snakepit.site.urls"
ASGI_APPLICATION = "snakepit.site.asgi.application"
WSGI_APPLICATION = "snakepit.site.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {"default": _database(os.environ.get("SNAKEPIT_DATABASE_URL") or "sqlite://")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("MinimumLengthValidator", "CommonPasswordValidator", "NumericPasswordValidator")
]
LOGIN_URL = "admin:login"
CSRF_FAILURE_VIEW = "snakepit.site.error_pages.form_expired"
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = STATE_DIR / "static"
STATIC_ROOT.mkdir(parents=True, exist_ok=True)  # WhiteNoise warns where it is missing
# WhiteNoise serves the files from the apps, so that a checkout needs no `collectstatic`.
WHITENOISE_USE_FINDERS = True
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_SAMESITE = "Lax"
SECURE_CONTENT_TYPE_NOSNIFF = True
LOG_LEVEL = os.environ.get("SNAKEPIT_LOG_LEVEL", "INFO").upper()
TICKING = ("celery.beat", "celery.worker.strategy", "celery.app.trace")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "snakepit.pools.broker.text.LineFormatter",
            "format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        }
    },
    "filters": {"bugs": {"()": "django.utils.log.CallbackFilter", "callback": lambda record: bool(record.exc_info)}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    "loggers": {
        # 4xx responses are not errors of the site: log only records with a traceback.
        "django.request": {"filters": ["bugs"]},
        **{name: {"level": "WARNING"} for name in ("asyncio", "hpack", "h2")},
        # Celery logs three lines per tick, which would hide all others; a job's row has its own history.
        **({} if LOG_LEVEL == "DEBUG" else {name: {"level": "WARNING"} for name in TICKING}),
    },
}

SNAKEPIT: dict[str, Any] = {
    "NODE_NAME": os.environ.get("SNAKEPIT_NODE_NAME", ""),
    "RUNTIME_DIR": os.environ.get("SNAKEPIT_RUNTIME_DIR", ""),
    "WORKER_PATH": [str(_home)],
    "TRUSTED_PROXIES": _words("SNAKEPIT_PROXIES"),
    "WORKER_USER": os.environ.get("SNAKEPIT_WORKER_USER", ""),
    "WORKER_GROUPS": _words("SNAKEPIT_WORKER_GROUPS"),
    "ADVERTISE": _words("SNAKEPIT_ADVERTISE"),
    # The web servers and Celery workers of this site on other hosts.
    "LISTEN_CERTIFICATES": {name: {"scopes": ["run", "view", "operate"]} for name in _words("SNAKEPIT_LISTEN_CLIENTS")},
    "LISTEN_TLS": {
        name: path
        for name in ("cert", "key", "client_ca")
        if (path := os.environ.get(f"SNAKEPIT_LISTEN_{name.upper()}"))
    },
}
# A shell beside `snakepit up --demo` needs the same pools as its broker.
if _flag("SNAKEPIT_DEMO") if "SNAKEPIT_DEMO" in os.environ else (STATE_DIR / "demo").exists():
    SNAKEPIT["ADAPTERS"] = {
        "digits": "snakepit.examples.digits.Digits",
        "docs": "snakepit.examples.docs_search.DocsSearch",
        "primes": "snakepit.examples.primes.Primes",
    }
    SNAKEPIT["POOLS"] = {
        "digits": {"adapter": "digits", "size": 2},
        "docs": {"adapter": "docs", "size": 1},
        "primes": {"adapter": "primes", "profile": "thread", "threads": 4, "size": 1},
    }
SNAKEPIT_DEMO_TOKEN = os.environ.get("SNAKEPIT_DEMO_TOKEN", "")
