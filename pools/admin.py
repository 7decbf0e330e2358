"""The admin: pools are edited, what was seen is only read, workers are recycled through the client."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import quote
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from pools import jobs, operations
from pools.api import door
from pools.api.auth import OF_SCOPE
from pools.broker.errors import BrokerError
from pools.models import ApiKey, Event, Job, JobAttempt, Node, Pool, Worker
from pools.models.apikey import SCOPES

IN_ADMIN = "ordered in the admin"


class Operates:
    """Adds the permission `operate`, which the actions on workers ask for."""

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("snakepit_pools.operate_pool")


class ReadOnly(admin.ModelAdmin):
    """Rows that the recorder writes: whoever may see them may see them, and nobody may write."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Pool)
class PoolAdmin(Operates, admin.ModelAdmin):
    list_display = ("name", "profile", "adapter", "size", "threads", "enabled", "paused", "source", "updated_at")
    list_filter = ("profile", "enabled", "paused", "source")
    search_fields = ("name", "adapter")
    actions = ("pause", "resume", "recycle")
    show_full_result_count = False
    fieldsets = (
        (None, {"fields": ("managed", "name", "adapter", "profile", "size", "threads", "enabled", "paused")}),
        ("Adapter", {"fields": ("args", "env", "python")}),
        ("Queue and time", {"fields": ("queue_limit", "queue_bytes", "queue_timeout", "call_timeout", "stream_timeout",
                                       "cancel_grace", "max_payload")}),
        ("Lifecycle", {"fields": ("ttl", "max_requests", "jitter", "min_lifetime", "memory_soft_mb", "memory_hard_mb",
                                  "memory_samples", "max_surge", "max_unavailable", "drain_timeout")}),
        ("Start and failure", {"fields": ("startup_timeout", "startup_batch", "startup_delay", "boot_budget",
                                          "death_budget", "retry_budget")}),
        ("Row", {"fields": ("source", "revision", "created_at", "updated_at", "updated_by")}),
    )  # fmt: skip
    readonly_fields = ("managed", "source", "revision", "created_at", "updated_at", "updated_by")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Pool]:
        return super().get_queryset(request).select_related("updated_by")

    @admin.display(description="managed by")
    def managed(self, pool: Pool) -> str:
        if pool.source == Pool.Source.SETTINGS:
            place = f'SNAKEPIT["POOLS"]["{pool.name}"]'
            text = f"The settings: {place}. Change it there and restart the broker; edits here would be overwritten."
            return f"{text} Pause and resume are actions of the list."
        return "The admin. A change is rolled out within two seconds."

    def get_readonly_fields(self, request: HttpRequest, obj: Pool | None = None) -> tuple[str, ...]:
        # A new name would be another pool, with another history: add that one and disable this.
        return (*self.readonly_fields, "name") if obj else self.readonly_fields

    def has_change_permission(self, request: HttpRequest, obj: Pool | None = None) -> bool:
        return super().has_change_permission(request, obj) and not _of_settings(obj)

    def has_delete_permission(self, request: HttpRequest, obj: Pool | None = None) -> bool:
        return super().has_delete_permission(request, obj) and not _of_settings(obj)

    def save_model(self, request: HttpRequest, obj: Pool, form: Any, change: bool) -> None:
        obj.updated_by_id = request.user.pk
        super().save_model(request, obj, form, change)

    @admin.action(
        description="Pause the selected pools: refuse new calls, keep the workers warm", permissions=["operate"]
    )
    def pause(self, request: HttpRequest, queryset: QuerySet[Pool]) -> None:
        self._change(request, queryset, operations.pause, "Paused.")

    @admin.action(description="Resume the selected pools", permissions=["operate"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Pool]) -> None:
        self._change(request, queryset, operations.resume, "Resumed.")

    def _change(self, request: HttpRequest, queryset: QuerySet[Pool], work: Any, text: str) -> None:
        order = operations.Order(_actor(request), IN_ADMIN, request.user.get_username())
        for pool in queryset:
            try:
                done = work(door.broker(), pool.name, order)
            except BrokerError as error:
                self.message_user(request, f"{pool}: {error.message}", messages.ERROR)
                continue
            _log(request, pool, text)
            level = messages.SUCCESS if done.in_force else messages.WARNING
            self.message_user(request, f"{pool}: {text} {done.note}".strip(), level)

    @admin.action(description="Recycle the workers of the selected pools", permissions=["operate"])
    def recycle(self, request: HttpRequest, queryset: QuerySet[Pool]) -> HttpResponse | None:
        return _recycle(self, request, [(pool, pool.name, "") for pool in queryset])


def _of_settings(pool: Pool | None) -> bool:
    return pool is not None and pool.source == Pool.Source.SETTINGS


@admin.register(Worker)
class WorkerAdmin(Operates, ReadOnly):
    list_display = ("worker_id", "pool", "node", "state", "reason", "pid", "load", "capacity", "served", "memory_mb",
                    "gil", "started_at", "seen_at")  # fmt: skip
    list_filter = ("state", "pool", "node")
    list_select_related = ("node",)
    search_fields = ("worker_id", "pool", "pid")
    actions = ("recycle",)

    @admin.action(description="Recycle the selected workers: drain each, its successor first", permissions=["operate"])
    def recycle(self, request: HttpRequest, queryset: QuerySet[Worker]) -> HttpResponse | None:
        alive = queryset.exclude(state="gone").select_related("node")
        gone = queryset.filter(state="gone").count()
        if gone:
            self.message_user(request, f"{gone} of the selected workers are gone already.", messages.WARNING)
        return _recycle(self, request, [(worker, worker.pool, worker.worker_id) for worker in alive])


def _actor(request: HttpRequest) -> str:
    return f"user {request.user.get_username()}"


def _recycle(page: admin.ModelAdmin, request: HttpRequest, targets: list[tuple[Any, str, str]]) -> HttpResponse | None:
    """Ask first; then order it from the broker, target by target, and log who did it and why.

    A refusal of one does not stop the others.
    """
    if targets and request.POST.get("confirmed") != "yes":
        return _ask_to_recycle(page, request, targets)
    reason = request.POST.get("reason", "").strip()[: operations.MAX_REASON] or IN_ADMIN
    for row, pool, worker in targets:
        try:
            planned = door.broker().recycle(pool, worker=worker, actor=_actor(request), reason=reason)["planned"]
        except BrokerError as error:
            page.message_user(request, f"{row}: {error.message}", messages.ERROR)
            continue
        text = f"Recycle ordered: {planned} to be replaced, each by a successor that is ready first."
        _log(request, row, f"{text} Why: {reason}")
        page.message_user(request, f"{row}: {text}", messages.SUCCESS)
    return None


def _ask_to_recycle(page: admin.ModelAdmin, request: HttpRequest, targets: list[tuple[Any, str, str]]) -> HttpResponse:
    """The page that says what a recycle would do, and asks why."""
    context = {
        **page.admin_site.each_context(request),
        "title": "Recycle these workers?",
        "targets": [_foresee(*target) for target in targets],
        "rows": [row for row, _, _ in targets],
        "back": request.get_full_path(),
    }
    return TemplateResponse(request, "snakepit/recycle_confirm.html", context)


def _foresee(row: Any, pool: str, worker: str) -> dict[str, Any]:
    try:
        plan = door.broker().plan(pool, worker)
    except BrokerError as error:
        return {"row": row, "error": error.message}
    meant = [one for one in plan["workers"] if worker in ("", one["id"])]
    leaving = [one for one in meant if one["in_turn"]]
    busy = sum(one["load"] > 0 for one in leaving)
    starting = sum(one["state"] == "starting" for one in meant)
    return {"row": row, "workers": len(leaving), "busy": busy, "starting": starting, "at_once": plan["at_once"]}


def _log(request: HttpRequest, row: Any, text: str) -> None:
    assert request.user.pk is not None
    LogEntry.objects.log_actions(request.user.pk, [row], CHANGE, change_message=text, single_object=True)


@admin.register(Node)
class NodeAdmin(ReadOnly):
    list_display = ("name", "version", "pid", "clock", "draining", "stopped", "started_at", "seen_at")
    search_fields = ("name", "address")


@admin.register(Event)
class EventAdmin(ReadOnly):
    list_display = ("at", "level", "kind", "pool", "worker", "reason", "message")
    list_filter = ("level", "kind", "pool")
    search_fields = ("worker", "message")
    date_hierarchy = "at"


class AttemptInline(admin.TabularInline):
    model = JobAttempt
    fields = readonly_fields = ("number", "outcome", "worker", "node", "claimed_by", "started_at", "finished_at",
                                "error", "evidence")  # fmt: skip
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Job)
class JobAdmin(ReadOnly):
    list_display = ("id", "pool", "command", "state", "attempts", "progress", "priority", "owner", "created_at",
                    "finished_at")  # fmt: skip
    list_filter = ("state", "pool")
    search_fields = ("id", "command", "owner", "tags", "idempotency_key")
    date_hierarchy = "created_at"
    actions = ("cancel", "retry")
    inlines = (AttemptInline,)
    exclude = ("result_raw",)

    def has_manage_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("snakepit_pools.manage_job")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        return super().get_queryset(request).defer("result_raw")

    def get_exclude(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if request.user.has_perm("snakepit_pools.view_payload"):
            return self.exclude
        return (*self.exclude, "arguments", "result")

    @admin.action(description="Cancel the selected jobs", permissions=["manage"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        self._each(request, queryset, jobs.cancel, "Cancel ordered")

    @admin.action(description="Retry the selected jobs", permissions=["manage"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        self._each(request, queryset, jobs.retry, "Queued again")

    def _each(self, request: HttpRequest, queryset: QuerySet[Job], work: Any, text: str) -> None:
        for job in queryset.only("pk", "pool", "command"):
            try:
                now = work(job.pk)
            except BrokerError as error:
                self.message_user(request, f"{job}: {error.message}", messages.ERROR)
                continue
            _log(request, job, f"{text}.")
            self.message_user(request, f"{job}: {text.lower()}; it is {now.state}.", messages.SUCCESS)


class ApiKeyForm(forms.ModelForm):
    """Scopes as boxes, pools as names; nobody can hand out more than they may do themselves."""

    request: HttpRequest
    scopes = forms.MultipleChoiceField(
        choices=[(scope, f"{scope}: {what}") for scope, what in SCOPES.items()], widget=forms.CheckboxSelectMultiple
    )
    pools = forms.CharField(required=False, help_text="Names of pools, with spaces between; empty: all pools.")

    class Meta:
        model = ApiKey
        fields = ("name", "scopes", "pools", "expires_at")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["pools"] = " ".join(self.instance.pools)

    def clean_scopes(self) -> list[str]:
        scopes: list[str] = self.cleaned_data["scopes"]
        for scope in scopes:
            if not all(self.request.user.has_perm(f"snakepit_pools.{name}") for name in OF_SCOPE[scope]):
                raise forms.ValidationError(f"You may not give the scope {scope!r}: you lack its permissions.")
        return scopes

    def clean_pools(self) -> list[str]:
        names: list[str] = self.cleaned_data["pools"].split()
        unknown = set(names) - set(Pool.objects.filter(name__in=names).values_list("name", flat=True))
        if unknown:
            raise forms.ValidationError(f"No pool is named {sorted(unknown)[0]!r}.")
        return names


@admin.register(ApiKey)
class ApiKeyAdmin(admin.ModelAdmin):
    form = ApiKeyForm
    list_display = ("name", "prefix", "owner", "scopes", "created_at", "expires_at", "last_used_at", "revoked_at")
    list_filter = ("revoked_at",)
    list_select_related = ("owner",)
    search_fields = ("name", "prefix", "owner__username")
    readonly_fields = ("owner", "prefix", "created_at", "last_used_at", "revoked_at")
    actions = ("revoke",)
    show_full_result_count = False

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        mine = ("name", "scopes", "pools", "expires_at")
        return (*mine, *self.readonly_fields) if obj else mine

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        return type("BoundApiKeyForm", (form,), {"request": request})

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return super().has_change_permission(request, obj) and _may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return super().has_delete_permission(request, obj) and _may_touch(request, obj)

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Any:
        if not change:
            form.instance.owner = request.user
            form.instance.secret = form.instance.issue()
        return super().save_form(request, form, change)

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        """The one page that shows the secret. Not a message: those wait in cookies."""
        context = {
            **self.admin_site.each_context(request),
            "title": "The new API key",
            "key": obj,
            "secret": obj.secret,  # type: ignore[attr-defined]
            "change_url": reverse("admin:snakepit_pools_apikey_change", args=(quote(obj.pk),)),
        }
        response = TemplateResponse(request, "snakepit/apikey_secret.html", context)
        response["Cache-Control"] = "no-store"
        return response

    @admin.action(description="Revoke the selected keys", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        for key in queryset.select_related("owner"):
            if not _may_touch(request, key):
                self.message_user(request, f"{key} belongs to {key.owner}.", messages.ERROR)
                continue
            key.revoke()
            _log(request, key, "Revoked.")
            self.message_user(request, f"{key} is revoked.", messages.SUCCESS)


def _may_touch(request: HttpRequest, key: ApiKey | None) -> bool:
    return key is None or request.user.is_superuser or key.owner_id == request.user.pk
