"""Pools in the admin: edited with the spec's validation, after a preview of what the change would do."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from snakepit.pools.admin.page import Page, log, order
from snakepit.pools.admin.recycle import recycle
from snakepit.pools.admin.scale import scale
from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.client import shared
from snakepit.pools.models import Pool
from snakepit.pools.operations import orders
from snakepit.pools.operations.change_preview import Rollout, preview


class AskFirst(Exception):
    """The change is not confirmed yet: undo the transaction and show what it would do."""

    def __init__(self, pool: Pool, rollout: Rollout) -> None:
        super().__init__(pool.name)
        self.pool = pool
        self.rollout = rollout


class PoolForm(forms.ModelForm):
    """The row's form. `_rollout=edit` comes from the preview's way back: it must not save."""

    def clean(self) -> dict[str, Any] | None:
        if self.data.get("_rollout") == "edit":
            raise forms.ValidationError("Nothing is saved yet: go on editing.")
        return super().clean()


@admin.register(Pool)
class PoolAdmin(Page):
    form = PoolForm
    list_display = ("name", "profile", "adapter", "size", "slots_each", "enabled", "paused", "source", "updated_at")
    list_filter = ("profile", "enabled", "paused", "source")
    search_fields = ("name", "adapter")
    actions = ("pause", "resume", "scale", "recycle")
    fieldsets = (
        (None, {"fields": ("managed", "name", "adapter", "profile", "size", "threads", "enabled", "paused")}),
        ("Adapter", {"fields": ("args", "env", "python", "preload", "thread_checks")}),
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

    @admin.display(description="threads", ordering="threads")
    def slots_each(self, pool: Pool) -> int | None:
        """A worker of the process profile has no threads, whatever its row says."""
        return pool.threads if pool.profile == "thread" else None

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

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except AskFirst as ask:  # it undid the transaction on its way
            return self._ask(request, ask.pool, ask.rollout)

    def save_model(self, request: HttpRequest, obj: Pool, form: Any, change: bool) -> None:
        before = Pool.objects.get(pk=obj.pk) if change else None
        what = foresee(before, obj) if before else None
        if before and what and what.changes and request.POST.get("_rollout") != str(before.revision):
            raise AskFirst(obj, what)
        obj.updated_by_id = request.user.pk
        given = order(request)
        with orders.recorded(given, "change_pool" if change else "add_pool", obj.name) as record:
            super().save_model(request, obj, form, change)
            if what:
                record.data = {one.field: [one.before, one.after] for one in what.changes}
                record.message = what.summary
        # At once, instead of when the broker next looks; and it tells who and why.
        told = f"change {', '.join(record.data)}" if change else "add"
        transaction.on_commit(lambda: self._tell(request, obj, told, given))

    def delete_model(self, request: HttpRequest, obj: Pool) -> None:
        given = order(request)
        with orders.recorded(given, "delete_pool", obj.name):
            super().delete_model(request, obj)
        transaction.on_commit(lambda: self._tell(request, obj, "delete", given))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Pool]) -> None:
        for pool in queryset:
            self.delete_model(request, pool)

    def _tell(self, request: HttpRequest, pool: Pool, action: str, given: orders.Order) -> None:
        try:
            shared.client().apply(pool=pool.name, action=action, actor=given.actor, reason=given.reason)
        except BrokerError as error:
            self.message_user(request, f"{pool}: saved, and not in force yet: {error.message}", messages.WARNING)

    def _ask(self, request: HttpRequest, pool: Pool, what: Rollout) -> HttpResponse:
        """The page that says what the change would do, with the form's fields hidden in it."""
        given = [(name, value) for name, values in request.POST.lists() for value in values]
        context = {
            **self.admin_site.each_context(request),
            "title": f"Roll out this change of {pool.name}?",
            "pool": pool,
            "rollout": what,
            "given": [(name, value) for name, value in given if name not in ("csrfmiddlewaretoken", "_rollout")],
            "revision": Pool.objects.get(pk=pool.pk).revision,
            "opts": self.opts,
        }
        return TemplateResponse(request, "snakepit/rollout_confirm.html", context)

    @admin.action(
        description="Pause the selected pools: refuse new calls, keep the workers warm", permissions=["operate"]
    )
    def pause(self, request: HttpRequest, queryset: QuerySet[Pool]) -> None:
        self._change(request, queryset, orders.pause, "Paused.")

    @admin.action(description="Resume the selected pools", permissions=["operate"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Pool]) -> None:
        self._change(request, queryset, orders.resume, "Resumed.")

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


def foresee(before: Pool, after: Pool) -> Rollout:
    """What saving the row would do; the workers are those of now, where a broker answers."""
    try:
        workers = shared.client().status(before.name)["workers"]
    except BrokerError:
        workers = []
    return preview(before.to_spec(), after.to_spec(), workers)


def _of_settings(pool: Pool | None) -> bool:
    return pool is not None and pool.source == Pool.Source.SETTINGS
