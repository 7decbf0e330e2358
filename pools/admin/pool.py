"""Pools in the admin: validated like PoolSpec; a change is saved after a preview of its effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from snakepit.pools.admin.live import live_states
from snakepit.pools.admin.page import Page, log, order
from snakepit.pools.admin.recycle import recycle
from snakepit.pools.admin.scale import scale
from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.placement import nodes_text
from snakepit.pools.client import shared
from snakepit.pools.models import Pool, schema
from snakepit.pools.operations import orders, queue_orders
from snakepit.pools.operations.change_preview import ChangePreview, preview_change
from snakepit.pools.web.last_status import ask_in_time


class ConfirmationRequired(Exception):
    """The change is not confirmed yet. Raising it rolls back the transaction; the view then shows the preview."""

    def __init__(self, pool: Pool, preview: ChangePreview) -> None:
        super().__init__(pool.name)
        self.pool = pool
        self.preview = preview


if TYPE_CHECKING:  # Django's class takes no type arguments at run time
    PoolModelForm = forms.ModelForm[Pool]
else:
    PoolModelForm = forms.ModelForm


class PoolForm(PoolModelForm):
    """The row's form. The preview's button "Continue editing" sends `_preview=edit`, which must not save."""

    def clean(self) -> dict[str, Any] | None:
        if self.data.get("_preview") == "edit":
            raise forms.ValidationError("The change is not saved yet. Edit it, then save.")
        return super().clean()


@admin.register(Pool)
class PoolAdmin(Page):
    form = PoolForm
    list_display = ("name", "now", "profile", "adapter", "place", "size", "slots_each", "enabled", "paused",
                    "queue_paused", "source", "problem", "updated_at")  # fmt: skip
    list_filter = ("profile", "enabled", "paused", "queue_paused", "source")
    search_fields = ("name", "adapter")
    actions = ("pause", "resume", "pause_queue", "resume_queue", "scale", "recycle")
    fieldsets = (
        (None, {"fields": ("now", "managed", "problem", "name", "adapter", "profile", "nodes", "size", "threads",
                           "enabled", "paused")}),
        ("Adapter", {"fields": ("args", "env", "python", "preload", "sandbox", "thread_checks")}),
        ("Queue and time", {"fields": ("queue_limit", "queue_bytes", "queue_timeout", "call_timeout", "stream_timeout",
                                       "cancel_grace", "max_payload", "max_buffer")}),
        ("Jobs", {"fields": ("job_limits",)}),
        ("Lifecycle", {"fields": ("ttl", "max_requests", "jitter", "min_lifetime", "memory_soft_mb", "memory_hard_mb",
                                  "memory_samples", "max_surge", "max_unavailable", "drain_timeout")}),
        ("Start and failure", {"fields": ("startup_timeout", "startup_batch", "startup_delay", "boot_budget",
                                          "death_budget", "retry_budget")}),
        ("Row", {"fields": ("source", "revision", "created_at", "updated_at", "updated_by")}),
    )  # fmt: skip
    readonly_fields = ("now", "managed", "problem", "source", "revision", "created_at", "updated_at", "updated_by")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Pool]:
        return super().get_queryset(request).select_related("updated_by")

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Ask the broker once for all rows of the page."""
        found = super().get_changelist_instance(request)
        states = live_states()
        for pool in found.result_list:
            pool.live_state = states(pool.name)
        return found

    @admin.display(description="now")
    def now(self, pool: Pool) -> str:
        """What the broker of this host reports: a definition alone hides that its workers fail to start."""
        return getattr(pool, "live_state", None) or (live_states()(pool.name) if pool.pk else "-")

    @admin.display(description="threads", ordering="threads")
    def slots_each(self, pool: Pool) -> int | None:
        """Empty for the process profile, which ignores the field."""
        return pool.threads if pool.profile == "thread" else None

    @admin.display(description="nodes")
    def place(self, pool: Pool) -> str:
        """Where it lives. A row may hold anything."""
        return nodes_text([str(one) for one in pool.nodes]) if isinstance(pool.nodes, list) else str(pool.nodes)

    @admin.display(description="problem")
    def problem(self, pool: Pool) -> str:
        return pool.definition_problem() if pool.pk else ""

    @admin.display(description="managed by")
    def managed(self, pool: Pool) -> str:
        if pool.source == Pool.Source.SETTINGS:
            place = f'SNAKEPIT["POOLS"]["{pool.name}"]'
            text = f"Settings: {place}. Change it there and restart the broker, which overwrites edits made here."
            return f"{text} To pause or resume it, use the actions of the list."
        return "Admin. The broker applies a change within two seconds."

    def get_readonly_fields(self, request: HttpRequest, obj: Pool | None = None) -> tuple[str, ...]:
        # A renamed pool would lose its history. Instead, add a pool and disable this one.
        return (*self.readonly_fields, "name") if obj else self.readonly_fields

    def has_change_permission(self, request: HttpRequest, obj: Pool | None = None) -> bool:
        return super().has_change_permission(request, obj) and not _of_settings(obj)

    def has_delete_permission(self, request: HttpRequest, obj: Pool | None = None) -> bool:
        return super().has_delete_permission(request, obj) and not _of_settings(obj)

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except ConfirmationRequired as required:  # the transaction is rolled back here
            return self._confirm(request, required.pool, required.preview)

    def save_model(self, request: HttpRequest, obj: Pool, form: Any, change: bool) -> None:
        before = Pool.objects.get(pk=obj.pk) if change else None
        preview = preview_of(before, obj) if before else None
        if before and preview and preview.changes and request.POST.get("_preview") != str(before.revision):
            raise ConfirmationRequired(obj, preview)
        obj.updated_by_id = request.user.pk
        given = order(request)
        with orders.recorded(given, "change_pool" if change else "add_pool", obj.name) as record:
            super().save_model(request, obj, form, change)
            if preview:
                record.data = {one.field: [one.before, one.after] for one in preview.changes}
                record.message = preview.summary
        # Applied immediately, instead of at the broker's next poll, and with actor and reason for its event.
        action = f"change {', '.join(record.data)}" if change else "add"
        transaction.on_commit(lambda: self._apply(request, obj, action, given), using=schema.alias())

    def delete_model(self, request: HttpRequest, obj: Pool) -> None:
        given = order(request)
        with orders.recorded(given, "delete_pool", obj.name):
            super().delete_model(request, obj)
        transaction.on_commit(lambda: self._apply(request, obj, "delete", given), using=schema.alias())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Pool]) -> None:
        for pool in queryset:
            self.delete_model(request, pool)

    def _apply(self, request: HttpRequest, pool: Pool, action: str, given: orders.Order) -> None:
        try:
            shared.client().apply(pool=pool.name, action=action, actor=given.actor, reason=given.reason)
        except BrokerError as error:
            self.message_user(request, f"{pool}: saved, but not in force yet: {error.message}", messages.WARNING)

    def _confirm(self, request: HttpRequest, pool: Pool, preview: ChangePreview) -> HttpResponse:
        """The page with the preview; it repeats the form's fields as hidden inputs."""
        given = [(name, value) for name, values in request.POST.lists() for value in values]
        context = {
            **self.admin_site.each_context(request),
            "title": f"Apply this change to {pool.name}?",
            "pool": pool,
            "preview": preview,
            "given": [(name, value) for name, value in given if name not in ("csrfmiddlewaretoken", "_preview")],
            "revision": Pool.objects.get(pk=pool.pk).revision,
            "opts": self.opts,
        }
        return TemplateResponse(request, "snakepit/change_confirm.html", context)

    @admin.action(
        description="Pause the selected pools: refuse new calls, keep the workers warm", permissions=["operate"]
    )
    def pause(self, request: HttpRequest, queryset: QuerySet[Pool]) -> None:
        self._change(request, queryset, orders.pause, "Paused.")

    @admin.action(description="Resume the selected pools", permissions=["operate"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Pool]) -> None:
        self._change(request, queryset, orders.resume, "Resumed.")

    @admin.action(description="Pause the jobs of the selected pools; calls go on", permissions=["operate"])
    def pause_queue(self, request: HttpRequest, queryset: QuerySet[Pool]) -> None:
        self._queue(request, queryset, queue_orders.pause_queue, "Jobs paused.")

    @admin.action(description="Resume the jobs of the selected pools", permissions=["operate"])
    def resume_queue(self, request: HttpRequest, queryset: QuerySet[Pool]) -> None:
        self._queue(request, queryset, queue_orders.resume_queue, "Jobs resumed.")

    def _queue(self, request: HttpRequest, queryset: QuerySet[Pool], work: Any, text: str) -> None:
        given = order(request)
        for pool in queryset:
            work(pool.name, given)
            log(request, pool, text)
            self.message_user(request, f"{pool}: {text.lower()}", messages.SUCCESS)

    def _change(self, request: HttpRequest, queryset: QuerySet[Pool], work: Any, text: str) -> None:
        given = order(request)
        for pool in queryset:
            try:
                done = work(shared.client(), pool.name, given)
            except BrokerError as error:
                self.message_user(request, f"{pool}: {error.message}", messages.ERROR)
                continue
            log(request, pool, text)
            level = messages.SUCCESS if done.in_force else messages.WARNING
            self.message_user(request, f"{pool}: {text} {done.note}".strip(), level)

    @admin.action(description="Scale the selected pools", permissions=["operate"])
    def scale(self, request: HttpRequest, queryset: QuerySet[Pool]) -> HttpResponse | None:
        return scale(self, request, queryset)

    @admin.action(description="Recycle the workers of the selected pools", permissions=["operate"])
    def recycle(self, request: HttpRequest, queryset: QuerySet[Pool]) -> HttpResponse | None:
        return recycle(self, request, [(pool, pool.name, "") for pool in queryset])


def preview_of(before: Pool, after: Pool) -> ChangePreview | None:
    """The effect of saving the row, with the present workers if the broker is reachable; None for a repaired row."""
    if before.definition_problem():
        return None
    try:
        workers = ask_in_time(before.name).workers
    except BrokerError:
        workers = ()
    return preview_change(before.to_spec(), after.to_spec(), workers)


def _of_settings(pool: Pool | None) -> bool:
    return pool is not None and pool.source == Pool.Source.SETTINGS
