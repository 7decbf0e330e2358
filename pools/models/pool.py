"""Pool: the desired state of one pool, from the admin or the settings, with the validation of PoolSpec."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import IntegrityError, models, router, transaction
from django.db.models import F, Q
from django.db.models.base import ModelBase
from django.db.models.functions import Now

from snakepit.pools import conf
from snakepit.pools.broker.sandbox import plain
from snakepit.pools.broker.spec import FIELDS, InvalidSpec, PoolSpec, Preload, Profile, spec_from
from snakepit.pools.models.moments import MomentField
from snakepit.pools.models.observed import Node
from snakepit.pools.models.strict_json import find_problem
from snakepit.pools.pool_size import bounded

PROFILES = [(one.value, one.value) for one in Profile]
PRELOADS = [(one.value, one.value) for one in Preload]
JSON_FIELDS = ("args", "env", "nodes", "sandbox", "job_limits")
OWNER_AWAY = timedelta(days=1)  # after which a node that wrote nothing owns no pool


def adapter_choices() -> list[tuple[str, str]]:
    """The keys of the registry; empty if the settings are invalid."""
    try:
        return [(key, f"{key} ({path})") for key, path in sorted(conf.adapters().items())]
    except ImproperlyConfigured:
        return []


def _of_spec(name: str, **options: Any) -> dict[str, Any]:
    """The options of a column: default, range and help of the field in PoolSpec."""
    definition = FIELDS[name]
    low, high = definition.metadata.get("low"), definition.metadata.get("high")
    if low is not None and high is not None:
        options["validators"] = [MinValueValidator(low), MaxValueValidator(high)]
    if definition.default is None:
        options |= {"null": True, "blank": True}
    options.setdefault("default", definition.default)
    unit = definition.metadata.get("unit")
    return {"help_text": definition.metadata["help"] + (f" [{unit}]" if unit else ""), **options}


def _ranges() -> Q:
    """All numeric ranges in one condition, because each constraint costs a query when a form is validated."""
    condition = Q()
    for name, definition in FIELDS.items():
        low, high = definition.metadata.get("low"), definition.metadata.get("high")
        if low is None or high is None:
            continue
        fits = Q((f"{name}__gte", low), (f"{name}__lte", high))
        condition &= Q((f"{name}__isnull", True)) | fits if definition.default is None else fits
    return condition


class Pool(models.Model):
    """A named set of workers of one definition."""

    class Source(models.TextChoices):
        ADMIN = "admin", "admin"
        SETTINGS = "settings", "settings"

    name = models.CharField(**_of_spec("name", max_length=48, unique=True, default=models.NOT_PROVIDED))
    adapter = models.CharField(
        **_of_spec("adapter", max_length=100, choices=adapter_choices, default=models.NOT_PROVIDED)
    )
    args = models.JSONField(**_of_spec("args", blank=True, default=dict))
    env = models.JSONField(**_of_spec("env", blank=True, default=dict))
    profile = models.CharField(**_of_spec("profile", max_length=16, choices=PROFILES, default="process"))
    size = models.PositiveIntegerField(**_of_spec("size", default=conf.default_size))
    nodes = models.JSONField(**_of_spec("nodes", blank=True, default=list))
    threads = models.PositiveIntegerField(**_of_spec("threads"))
    python = models.CharField(**_of_spec("python", max_length=500, blank=True))
    preload = models.CharField(**_of_spec("preload", max_length=8, choices=PRELOADS, default="auto"))
    sandbox = models.JSONField(**_of_spec("sandbox", blank=True, default=dict))
    queue_limit = models.PositiveIntegerField(**_of_spec("queue_limit"))
    queue_bytes = models.PositiveBigIntegerField(**_of_spec("queue_bytes"))
    queue_timeout = models.FloatField(**_of_spec("queue_timeout"))
    call_timeout = models.FloatField(**_of_spec("call_timeout"))
    stream_timeout = models.FloatField(**_of_spec("stream_timeout"))
    cancel_grace = models.FloatField(**_of_spec("cancel_grace"))
    startup_timeout = models.FloatField(**_of_spec("startup_timeout"))
    startup_batch = models.PositiveIntegerField(**_of_spec("startup_batch"))
    startup_delay = models.FloatField(**_of_spec("startup_delay"))
    ttl = models.FloatField(**_of_spec("ttl"))
    max_requests = models.PositiveBigIntegerField(**_of_spec("max_requests"))
    jitter = models.FloatField(**_of_spec("jitter"))
    min_lifetime = models.FloatField(**_of_spec("min_lifetime"))
    memory_soft_mb = models.FloatField(**_of_spec("memory_soft_mb"))
    memory_hard_mb = models.FloatField(**_of_spec("memory_hard_mb"))
    memory_samples = models.PositiveIntegerField(**_of_spec("memory_samples"))
    max_surge = models.PositiveIntegerField(**_of_spec("max_surge"))
    max_unavailable = models.PositiveIntegerField(**_of_spec("max_unavailable"))
    drain_timeout = models.FloatField(**_of_spec("drain_timeout"))
    max_payload = models.PositiveIntegerField(**_of_spec("max_payload"))
    max_buffer = models.PositiveBigIntegerField(**_of_spec("max_buffer"))
    boot_budget = models.PositiveIntegerField(**_of_spec("boot_budget"))
    death_budget = models.PositiveIntegerField(**_of_spec("death_budget"))
    retry_budget = models.FloatField(**_of_spec("retry_budget"))
    job_limits = models.JSONField(**_of_spec("job_limits", blank=True, default=list))
    thread_checks = models.BooleanField(**_of_spec("thread_checks"))
    enabled = models.BooleanField(**_of_spec("enabled"))
    paused = models.BooleanField(**_of_spec("paused"))
    queue_paused = models.BooleanField(default=False, editable=False, help_text="Its jobs wait; its calls go on.")

    source = models.CharField(max_length=16, choices=Source.choices, default=Source.ADMIN, editable=False)
    owners = models.JSONField(default=list, editable=False, help_text="Nodes whose settings name this pool.")
    revision = models.PositiveIntegerField(default=0, editable=False, help_text="Counts the saves of this row.")
    created_at = MomentField(auto_now_add=True)
    updated_at = MomentField(auto_now=True)
    updated_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, editable=False, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        db_table = "snakepit_pool"
        ordering = ("name",)
        permissions = [
            ("operate_pool", "Can recycle, drain, scale, pause, resume and kill, read stacks, cancel calls"),
            ("run_command", "Can call the commands of pools"),
            ("view_payload", "Can see arguments and results of calls"),
        ]
        constraints = [
            models.CheckConstraint(
                name="snakepit_pool_profile",
                condition=Q(profile__in=[one.value for one in Profile]),
                violation_error_message="The profile must be process or thread.",
            ),
            models.CheckConstraint(
                name="snakepit_pool_preload",
                condition=Q(preload__in=[one.value for one in Preload]),
                violation_error_message="Preload must be auto, on or off.",
            ),
            models.CheckConstraint(
                name="snakepit_pool_source",
                condition=Q(source__in=["admin", "settings"]),
                violation_error_message="The source must be admin or settings.",
            ),
            models.CheckConstraint(
                name="snakepit_pool_named",
                condition=~Q(name="") & ~Q(adapter=""),
                violation_error_message="A pool needs a name and an adapter.",
            ),
            models.CheckConstraint(
                name="snakepit_pool_ranges",
                condition=_ranges(),
                violation_error_message="A number is outside its range.",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def save(
        self,
        *,
        force_insert: bool | tuple[ModelBase, ...] = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        # Computed in the database, so that two concurrent saves get different revisions.
        self.revision = 1 if self._state.adding else F("revision") + 1
        if update_fields is not None:
            update_fields = {*update_fields, "revision", "updated_at"}
        super().save(force_insert=force_insert, force_update=force_update, using=using, update_fields=update_fields)
        self.refresh_from_db(fields=["revision"], using=using)

    def to_spec(self) -> PoolSpec:
        """The definition; raises InvalidSpec, whose problems name the fields."""
        spec = bounded(spec_from({name: getattr(self, name) for name in FIELDS}), conf.current().max_pool_size)
        if why := conf.find_env_problem(spec.name, spec.env):
            raise InvalidSpec({"env": why})
        return spec

    def definition_problem(self) -> str:
        """Why the broker does not take this row; empty if it does. Its pool keeps its last definition meanwhile."""
        try:
            self.to_spec()
        except InvalidSpec as error:
            return str(error)
        return ""

    def clean(self) -> None:
        super().clean()
        try:
            self.to_spec()
        except InvalidSpec as error:
            raise ValidationError(error.problems) from None
        if why := conf.find_python_problem(self.python):
            raise ValidationError({"python": f"{why}."})
        problems = {name: find_problem(getattr(self, name)) for name in JSON_FIELDS}
        if found := {name: f"This {problem}." for name, problem in problems.items() if problem}:
            raise ValidationError(found)


def sync_pools(node: str = "") -> list[str]:
    """Write the pools of this node's settings into rows; returns the names that changed. A starting broker calls this.

    A pool belongs to the nodes whose settings name it. When the last of them drops it, it is disabled, not deleted: its
    history and its name remain. A paused pool stays paused, because a pause must survive a crash of the broker.
    """
    try:
        return _sync_pools(node or conf.node_name())
    except IntegrityError:  # a broker that started at the same moment has written the same pool first
        return _sync_pools(node or conf.node_name())


def _sync_pools(node: str) -> list[str]:
    specs = {spec.name: spec for spec in conf.pool_specs()}
    using = router.db_for_write(Pool)
    with transaction.atomic(using):  # brokers that start together must not overwrite each other's `owners`
        rows = {row.name: row for row in Pool.objects.using(using).select_for_update()}
        changed = [name for name, spec in specs.items() if _sync(rows.get(name) or Pool(name=name), spec, using)]
        Node.objects.filter(name=node).update(seen_at=Now())  # a node that returns owns its pools again
        left = _nodes_left()
        for row in Pool.objects.using(using).filter(source=Pool.Source.SETTINGS):
            owners = sorted({*row.owners, node} - left if row.name in specs else {*row.owners} - {node} - left)
            if owners != row.owners:
                Pool.objects.using(using).filter(pk=row.pk).update(owners=owners)  # not a revision of the definition
            if not owners and row.enabled:
                row.enabled = False
                row.save(using=using, update_fields=["enabled"])
                changed.append(row.name)
    return changed


def _nodes_left() -> set[str]:
    """Nodes that have been away for OWNER_AWAY. Hosts of containers get a new name at each deployment."""
    return set(Node.objects.silent_for(OWNER_AWAY).values_list("name", flat=True))


def _sync(pool: Pool, spec: PoolSpec, using: str) -> bool:
    wanted: dict[str, Any] = {name: getattr(spec, name) for name in FIELDS}
    wanted |= {"profile": str(spec.profile), "preload": str(spec.preload), "source": "settings"}
    wanted |= {"args": dict(spec.args), "env": dict(spec.env), "nodes": list(spec.nodes)}
    wanted |= {"job_limits": [dict(one) for one in spec.job_limits], "sandbox": plain(spec.sandbox)}
    wanted["paused"] = spec.paused or (pool.paused and pool.source == Pool.Source.SETTINGS)
    if not pool._state.adding and all(getattr(pool, name) == value for name, value in wanted.items()):
        return False
    for name, value in wanted.items():
        setattr(pool, name, value)
    pool.updated_by = None
    pool.save(using=using)
    return True
