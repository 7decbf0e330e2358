"""Periodic jobs in the admin: editable, checked as a submission is, with the next and the last runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from snakepit.pools import permissions
from snakepit.pools.admin.page import Page, log, order, without_payload
from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.jobs import periodic
from snakepit.pools.models import PeriodicJob
from snakepit.pools.operations import orders, periodic_orders

RUNS = 10  # of the last ones
if TYPE_CHECKING:  # Django's class takes no type arguments at run time
    PeriodicModelForm = forms.ModelForm[PeriodicJob]
else:
    PeriodicModelForm = forms.ModelForm


class PeriodicForm(PeriodicModelForm):
    def _post_clean(self) -> None:
        """After the checks of the fields and the model: pool, command, arguments and options, as for a submission."""
        super()._post_clean()  # type: ignore[misc]
        if not self.errors:
            for field, why in periodic.problems(self.instance).items():
                self.add_error(field if field in self.fields else None, why)


@admin.register(PeriodicJob)
class PeriodicJobAdmin(Page):
    form = PeriodicForm
    list_display = ("name", "pool", "command", "schedule", "enabled", "next_run", "last_run", "problem")
    list_filter = ("enabled", "pool")
    search_fields = ("name", "pool", "command", "owner")
    actions = ("run_now", "pause", "resume")
    fieldsets = (
        (None, {"fields": ("name", "enabled", "pool", "command", "arguments")}),
        ("Schedule", {"fields": ("cron", "time_zone", "interval", "misfire", "upcoming", "recent", "problem")}),
        ("Options of its jobs", {"fields": ("owner", "priority", "timeout", "expires_after", "retry", "max_attempts",
                                            "backoff", "tags", "retention")}),
    )  # fmt: skip
    readonly_fields = ("upcoming", "recent", "problem")

    @admin.display(description="next runs")
    def upcoming(self, row: PeriodicJob) -> str | SafeString:
        times = row.next_runs() if row.pk else []
        if not times:
            return "paused" if row.pk and not row.enabled else "-"
        return format_html_join(SafeString("<br>"), "{}", ((_local(moment, row),) for moment in times))

    @admin.display(description="last runs")
    def recent(self, row: PeriodicJob) -> str | SafeString:
        runs = list(row.runs.order_by("-nominal")[:RUNS]) if row.pk else []
        shown = ((_local(run.nominal, row), _link(run.job) if run.job else run.problem) for run in runs)
        return format_html_join(SafeString("<br>"), "{}: {}", shown) if runs else "-"

    def get_fieldsets(self, request: HttpRequest, obj: PeriodicJob | None = None) -> Any:
        if obj is None or self._may_read_arguments(request, obj):
            return self.fieldsets
        (title, first), *rest = self.fieldsets
        return ((title, {"fields": tuple(name for name in first["fields"] if name != "arguments")}), *rest)

    def hidden_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return without_payload(request, "arguments")

    def _may_read_arguments(self, request: HttpRequest, obj: PeriodicJob) -> bool:
        return obj.owner == request.user.get_username() or "view_payload" in permissions.of(request.user)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {"owner": request.user.get_username(), **super().get_changeform_initial_data(request)}

    def save_model(self, request: HttpRequest, obj: PeriodicJob, form: Any, change: bool) -> None:
        action = "change_periodic" if change else "add_periodic"
        with orders.recorded(order(request), action, obj.pool, obj.name) as record:
            record.data = {"changed": list(form.changed_data)}
            super().save_model(request, obj, form, change)

    def delete_model(self, request: HttpRequest, obj: PeriodicJob) -> None:
        with orders.recorded(order(request), "delete_periodic", obj.pool, obj.name):
            super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[PeriodicJob]) -> None:
        for row in queryset:
            self.delete_model(request, row)

    @admin.action(description="Run the selected periodic jobs now", permissions=["operate"])
    def run_now(self, request: HttpRequest, queryset: QuerySet[PeriodicJob]) -> None:
        self._each(request, queryset, periodic_orders.run, "Submitted")

    @admin.action(description="Pause the selected periodic jobs", permissions=["operate"])
    def pause(self, request: HttpRequest, queryset: QuerySet[PeriodicJob]) -> None:
        self._each(request, queryset, periodic_orders.pause, "Paused")

    @admin.action(description="Resume the selected periodic jobs", permissions=["operate"])
    def resume(self, request: HttpRequest, queryset: QuerySet[PeriodicJob]) -> None:
        self._each(request, queryset, periodic_orders.resume, "Resumed")

    def _each(self, request: HttpRequest, queryset: QuerySet[PeriodicJob], work: Callable[..., Any], text: str) -> None:
        given = order(request)
        for row in queryset:
            try:
                work(row.name, given)
            except BrokerError as error:
                self.message_user(request, f"{row}: {error.message}", messages.ERROR)
                continue
            log(request, row, f"{text}.")
            self.message_user(request, f"{row}: {text.lower()}.", messages.SUCCESS)


def _local(moment: datetime, row: PeriodicJob) -> str:
    return moment.astimezone(ZoneInfo(row.time_zone)).strftime("%Y-%m-%d %H:%M:%S %Z")


def _link(job: Any) -> SafeString:
    return format_html('<a href="{}">{}</a>', reverse("admin:snakepit_pools_job_change", args=[job]), job)
