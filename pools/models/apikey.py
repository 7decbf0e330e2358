"""ApiKey: access to the REST API without a session. The secret is shown once and never stored."""

from __future__ import annotations

import copy
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import OperationalError, models, transaction
from django.db.models import Q
from django.db.models.base import ModelState

from snakepit.pools import conf
from snakepit.pools.broker.caller import CallerIdentity, Limits, find_limit_problem
from snakepit.pools.models.known_keys import KeyQuerySet
from snakepit.pools.models.moments import MomentField, utc_now
from snakepit.pools.models.owner_rights import of_owner
from snakepit.pools.permissions import SCOPES, of_scopes

SECRET = re.compile(r"snk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
logger = logging.getLogger("snakepit.api")
USED_EVERY = timedelta(minutes=1)
ROTATION = timedelta(days=7)  # for callers to change to a rotated key; both are valid meanwhile


def digest_of(secret: str) -> str:
    """SHA-256 of a secret. A slow hash is unnecessary, because 256 random bits cannot be guessed."""
    return hashlib.sha256(secret.encode()).hexdigest()


class ApiKey(models.Model):
    """A scoped, hashed bearer key."""

    name = models.CharField(max_length=100, help_text="Purpose of the key.")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="snakepit_api_keys")
    prefix = models.CharField(max_length=12, unique=True, editable=False)
    digest = models.CharField(max_length=64, editable=False)
    scopes = models.JSONField(default=list, help_text=f"A list of scopes: {', '.join(SCOPES)}.")
    pools = models.JSONField(default=list, blank=True, help_text="Names of the allowed pools. Empty: all pools.")
    limits = models.JSONField(default=dict, blank=True, help_text="Limits of this key; others are those of KEY_LIMITS.")
    created_at = MomentField(auto_now_add=True)
    expires_at = MomentField(null=True, blank=True, help_text="Empty: the key does not expire.")
    last_used_at = MomentField(null=True, blank=True, editable=False)
    revoked_at = MomentField(null=True, blank=True, editable=False)

    objects = KeyQuerySet.as_manager()

    class Meta:
        db_table = "snakepit_apikey"
        ordering = ("-id",)
        verbose_name = "API key"
        constraints = [models.CheckConstraint(name="snakepit_apikey_digest", condition=~Q(prefix="") & ~Q(digest=""))]

    def __str__(self) -> str:
        return f"{self.name} (snk_{self.prefix})"

    @classmethod
    def create(
        cls,
        *,
        name: str,
        owner: Any,
        scopes: Sequence[str] = ("run", "view"),
        pools: Sequence[str] = (),
        expires_at: datetime | None = None,
        limits: Mapping[str, float] | None = None,
    ) -> tuple[ApiKey, str]:
        """Create a key. Returns it with its secret, which cannot be read again."""
        key = cls(name=name, owner=owner, scopes=list(scopes), pools=list(pools), expires_at=expires_at)
        key.limits = dict(limits or {})
        secret = key.issue()
        key.full_clean()
        key.save()
        return key, secret

    def issue(self) -> str:
        """Generate the secret of this unsaved key."""
        self.prefix = secrets.token_hex(6)
        secret = f"snk_{self.prefix}_{secrets.token_urlsafe(32)}"
        self.digest = digest_of(secret)
        return secret

    @classmethod
    def find(cls, secret: str) -> ApiKey | None:
        """The usable key with this secret. The comparison takes the same time for known and unknown prefixes."""
        shape = SECRET.fullmatch(secret)
        key = cls.objects.select_related("owner").filter(prefix=shape[1]).first() if shape else None
        known = hmac.compare_digest(digest_of(secret if shape else ""), key.digest if key else "0" * 64)
        return key if known and key and key.usable else None

    @property
    def usable(self) -> bool:
        alive = self.revoked_at is None and (self.expires_at is None or self.expires_at > utc_now())
        return alive and self.owner.is_active

    @property
    def permissions(self) -> frozenset[str]:
        """What the key may do: what its scopes grant, as far as its owner may do it now."""
        return of_scopes(self.scopes) & of_owner(self.owner)

    @property
    def visible(self) -> str:
        """The part of the secret that lists and errors show."""
        return f"snk_{self.prefix}"

    @property
    def all_limits(self) -> Limits:
        """The limits of this key: its own, else those of the settings."""
        own = {} if find_limit_problem(self.limits) else self.limits  # a row may have been written by another release
        return Limits.of(own, conf.key_limits())

    def touch(self) -> None:
        """Record the use, at most once a minute: a write per call would cost more than the call."""
        now = utc_now()
        if self.last_used_at is None or now - self.last_used_at >= USED_EVERY:
            try:
                models.QuerySet(type(self)).filter(pk=self.pk).update(last_used_at=now)  # known keys stay known
            except OperationalError as error:  # on a full disk: reads and calls need no room
                logger.warning("the use of the key %s cannot be recorded: %s", self.prefix, error)

    def revoke(self) -> None:
        if self.revoked_at is None:
            self.revoked_at = utc_now()
            self.save(update_fields=["revoked_at"])

    def rotate(self) -> tuple[ApiKey, str]:
        """Create a successor with the same rights and its secret. This key stays valid for ROTATION at most."""
        successor, end = copy.copy(self), utc_now() + ROTATION
        successor.pk, successor._state = None, ModelState()
        successor.last_used_at = None
        if self.expires_at is not None:  # valid for as long as this one was made for
            successor.expires_at = utc_now() + (self.expires_at - self.created_at)
        secret = successor.issue()
        with transaction.atomic(using=self._state.db):
            successor.full_clean()
            successor.save(using=self._state.db)
            self.expires_at = min(self.expires_at or end, end)
            self.save(update_fields=["expires_at"])
        return successor, secret

    def clean(self) -> None:
        super().clean()
        problems = {}
        if not isinstance(self.scopes, list) or not self.scopes:
            problems["scopes"] = f"Set at least one of {', '.join(SCOPES)}."
        elif wrong := [one for one in self.scopes if not isinstance(one, str) or one not in SCOPES]:
            problems["scopes"] = f"{wrong[0]!r} is not a scope; the scopes are {', '.join(SCOPES)}."
        if not isinstance(self.pools, list) or not all(isinstance(one, str) and one for one in self.pools):
            problems["pools"] = "Must be a list of names of pools, or an empty list for all pools."
        if unfit := find_limit_problem(self.limits):
            problems["limits"] = f"{unfit}."
        if self._state.adding and self.expires_at is not None and self.expires_at <= utc_now():
            problems["expires_at"] = "This time is in the past: the key would never be valid."
        if problems:
            raise ValidationError(problems)


def quota_of(owner: str, key: ApiKey | None = None) -> CallerIdentity:
    """The limits of a key and of its owner."""
    settings = conf.current()
    own = (key.visible, key.all_limits) if key else ("", Limits())
    return CallerIdentity(own[0], owner, own[1], conf.owner_limits(), settings.key_share, settings.owner_share)
