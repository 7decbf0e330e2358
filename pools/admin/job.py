"""Jobs in the admin: read-only, filtered by indexed columns, with the actions cancel, retry and delete."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from snakepit.pools import permissions
from snakepit.pools.admin.job_delete import delete
from snakepit.pools.admin.page import ReadOnly, log, order, without_payload
from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.jobs.listing import SCANNED, SLACK, key_at, newest
from snakepit.pools.models import Job, JobAttempt, JobEdge, Pool
from snakepit.pools.models.job import JobQuerySet
from snakepit.pools.models.states import SHOWN_STATES
from snakepit.pools.operations import orders

LARGE = ("arguments", "result", "result_raw", "error")
Work = Callable[[Any, orders.Order], Job]


if TYPE_CHECKING:  # Django's class takes no type arguments at run time
    JobAttemptInline = admin.TabularInline[JobAttempt, Job]
    JobEdgeInline = admin.TabularInline[JobEdge, Job]
else:
    JobAttemptInline = JobEdgeInline = admin.TabularInline


# The two keys are hashes of arguments: a value of few digits can be found by trying all.
PAYLOAD = ("arguments", "result", "result_raw", "error", "progress_message", "limit_key", "unique_key")


class Shown:
    """The rows of an inline are shown with a job, to those who may see it, and never changed."""

    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return "view_job" in permissions.of(request.user)


class AttemptInline(Shown, JobAttemptInline):
    model = JobAttempt
    fields = readonly_fields = ("number", "outcome", "worker", "node", "claimed_by", "started_at", "finished_at",
                                "error", "evidence")  # fmt: skip

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        sees = "view_payload" in permissions.of(request.user)
        return tuple(name for name in self.fields if sees or name not in ("error", "evidence"))


class EdgeInline(Shown, JobEdgeInline):
    """The jobs that this one waits for, or has waited for."""

    model = JobEdge
    fk_name = "job"
    verbose_name_plural = "predecessors"
    fields = readonly_fields = ("needs", "state", "policy", "argument")

    def get_queryset(self, request: HttpRequest) -> QuerySet[JobEdge]:
        brief = "needs__pool", "needs__command", "needs__state", "needs__run_after"
        return super().get_queryset(request).select_related("needs").only("job", "policy", "argument", *brief)

    @admin.display(description="state")
    def state(self, edge: JobEdge) -> str:
        return edge.needs.shown_state


class JobsByDate(JobQuerySet):
    """For the date hierarchy: all days from the first to the last job, without a scan of the rows between them."""

    def aggregate(self, *given: Any, **named: Any) -> dict[str, Any]:
        """Answer the template tag of the date hierarchy, which asks for the first and the last time."""
        return self._ends() if named.keys() == {"first", "last"} else super().aggregate(*given, **named)

    def _ends(self) -> dict[str, Any]:
        """The times of the oldest and of the newest job, by their ids, which have an index with each filter.

        A minimum of the column reads all rows up to the first one that matches.
        """
        ends = [self.order_by(order).values_list("created_at", flat=True).first() for order in ("pk", "-pk")]
        found = sorted(at for at in ends if at is not None)
        return {"first": found[0], "last": found[-1]} if found else {"first": None, "last": None}

    def datetimes(self, field_name: str, kind: str, *_: Any, **__: Any) -> list[datetime]:  # type: ignore[override]
        ends = self._ends()
        if ends["first"] is None:
            return []
        first, last = (timezone.localtime(ends[name]) for name in ("first", "last"))
        found, day = [], first.replace(hour=0, minute=0, second=0, microsecond=0)
        while day <= last:
            found.append(day)
            day = _following(day, kind)
        return found


def _following(day: datetime, kind: str) -> datetime:
    """The first day of the next year or month, or the next day."""
    if kind == "day":
        return day + timedelta(days=1)
    if kind == "year" or day.month == 12:
        return day.replace(year=day.year + 1, month=1, day=1)
    return day.replace(month=day.month + 1, day=1)


class JobList(ChangeList):
    """The list, whose date hierarchy reads a range of ids: these have the order of the list, and contain their time."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Job]:
        rows: QuerySet[Job] = super().get_queryset(request, exclude_parameters)
        if self.query:  # to find the first and the last day of a search reads all that it covers, twice
            self.date_hierarchy = None
        return rows.filter(**_ids_of(request.GET))

    def get_ordering_field(self, field_name: Any) -> Any:
        """The column of an order that an address asks for. Of another column the database would sort all rows."""
        return super().get_ordering_field(field_name) if field_name in JobAdmin.sortable_by else None


def _ids_of(given: Mapping[str, str]) -> dict[str, uuid.UUID]:
    """The range of ids of a year, month or day of the date hierarchy; empty without one."""
    parts = [given.get(f"created_at__{kind}", "") for kind in ("year", "month", "day")]
    kind = "day" if parts[2] else "month" if parts[1] else "year"
    try:
        first = timezone.make_aware(datetime(*(int(part or 1) for part in parts)))  # type: ignore[arg-type]
        last = _following(first, kind)
        return {"pk__gte": key_at(first - SLACK), "pk__lt": key_at(last + SLACK)} if parts[0] else {}
    except (ValueError, OverflowError):  # the list itself refuses it
        return {}


class PoolFilter(admin.SimpleListFilter):
    """Filter by pool. Reads the names from the table of pools, not from every job."""

    title = parameter_name = "pool"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in Pool.objects.values_list("name", flat=True)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Job]) -> QuerySet[Job]:
        return queryset.filter(pool=self.value()) if self.value() else queryset


class StateFilter(admin.SimpleListFilter):
    """Filter by the shown state: `scheduled` is not stored."""

    title = parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in SHOWN_STATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Job]) -> QuerySet[Job]:
        return queryset.shown_as(self.value()) if self.value() else queryset  # type: ignore[attr-defined]


@admin.register(Job)
class JobAdmin(ReadOnly):
    list_display = ("short_id", "pool", "command", "shown_state", "attempts", "done", "priority", "owner", "created_at",
                    "finished_at")  # fmt: skip
    list_filter = (StateFilter, PoolFilter)
    search_fields = ("command", "owner", "tags", "idempotency_key")
    search_help_text = (
        "An id, or part of a command, owner, tag or idempotency key "
        f"of the newest {SCANNED:,} jobs that match the filters."
    )
    ordering = ("-id",)
    sortable_by = ("short_id",)
    date_hierarchy = "created_at"
    actions = ("cancel", "retry", "delete_ended")
    inlines = (AttemptInline, EdgeInline)
    exclude = ("result_raw", "state", "tags")
    readonly_fields = ("shown_state", "tag_names")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        rows = JobsByDate(Job).order_by("-id").defer("result_raw")
        at = request.resolver_match
        # A payload may have a megabyte, and the list shows none.
        return rows.defer(*LARGE) if at and (at.url_name or "").endswith("_changelist") else rows

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Job], search_term: str
    ) -> tuple[QuerySet[Job], bool]:
        try:
            return queryset.filter(pk=uuid.UUID(search_term.strip())), False
        except ValueError:
            # No index has parts of a text, and a search that finds nothing would read all rows.
            rows = newest(queryset) if search_term else queryset
            return super().get_search_results(request, rows, search_term)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[JobList]:
        return JobList

    def get_exclude(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.exclude, *self.hidden_fields(request))))

    def hidden_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return without_payload(request, *PAYLOAD)

    @admin.display(description="job", ordering="id")
    def short_id(self, job: Job) -> str:
        """The end of the id, as on the dashboard: the whole one takes four lines of the list."""
        return str(job.pk)[-12:]

    @admin.display(description="tags")
    def tag_names(self, job: Job) -> str:
        return ", ".join(job.tag_list) or "-"

    @admin.display(description="progress")
    def done(self, job: Job) -> str:
        return "-" if job.progress is None else f"{job.progress:.0%}"

    @admin.display(description="state")
    def shown_state(self, job: Job) -> str:
        return job.shown_state

    @admin.action(description="Cancel the selected jobs", permissions=["manage"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        self._each(request, queryset, orders.cancel_job, "Cancel requested")

    @admin.action(description="Retry the selected jobs", permissions=["manage"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        self._each(request, queryset, orders.retry_job, "Queued again")

    @admin.action(description="Delete the selected ended jobs", permissions=["manage"])
    def delete_ended(self, request: HttpRequest, queryset: JobQuerySet) -> HttpResponse | None:
        return delete(self, request, queryset)

    def _each(self, request: HttpRequest, queryset: QuerySet[Job], work: Work, text: str) -> None:
        given = order(request)
        for job in queryset.only("pk", "pool", "command"):
            try:
                now = work(job.pk, given)
            except BrokerError as error:
                self.message_user(request, f"{job}: {error.message}", messages.ERROR)
                continue
            log(request, job, f"{text}.")
            self.message_user(request, f"{job}: {text.lower()}; state: {now.shown_state}.", messages.SUCCESS)
