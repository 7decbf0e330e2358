"""Nodes, workers and events in the admin: read-only, nodes and workers with actions."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from snakepit.pools.admin.drain import drain, resume
from snakepit.pools.admin.page import ReadOnly
from snakepit.pools.admin.recycle import recycle
from snakepit.pools.models import Event, Node, Worker


@admin.register(Worker)
class WorkerAdmin(ReadOnly):
    list_display = ("worker_id", "pool", "node", "state", "reason", "pid", "calls", "served", "memory", "lock",
                    "parallel", "started_at", "seen_at")  # fmt: skip
    fields = ("node", "worker_id", "pool", "state", "reason", "pid", "generation", "calls", "lost", "served", "memory",
              "lock", "python", "parallel", "template", "loading", "started_at", "seen_at", "gone_at")  # fmt: skip
    readonly_fields = ("calls", "memory", "lock", "parallel", "loading")
    list_filter = ("state", "pool", "node")
    list_select_related = ("node",)
    search_fields = ("worker_id", "pool", "pid")
    actions = ("recycle",)

    @admin.display(description="load", ordering="load")
    def calls(self, row: Worker) -> str:
        return f"{row.load}/{row.capacity}"

    @admin.display(description="memory", ordering="memory_mb")
    def memory(self, row: Worker) -> str:
        return "-" if row.memory_mb is None or row.memory_mb < 0 else f"{row.memory_mb:.0f} MiB"

    @admin.display(description="GIL", ordering="gil")
    def lock(self, row: Worker) -> str:
        """The state of the GIL, and the import that enabled it."""
        return " ".join(filter(None, (row.gil, row.gil_culprit and f"because of {row.gil_culprit}"))) or "-"

    @admin.display(description="parallelism", ordering="parallelism")
    def parallel(self, row: Worker) -> str:
        """How many of its threads run in parallel, as measured."""
        return f"{row.parallelism:.1f} x" if row.parallelism else "-"

    @admin.display(description="load time", ordering="load_seconds")
    def loading(self, row: Worker) -> str:
        """How long its adapter took to load."""
        return f"{row.load_seconds:.3f} s"

    @admin.action(description="Recycle the selected workers: start replacements, then drain", permissions=["operate"])
    def recycle(self, request: HttpRequest, queryset: QuerySet[Worker]) -> HttpResponse | None:
        alive = queryset.exclude(state="gone").select_related("node")
        gone = queryset.filter(state="gone").count()
        if gone:
            self.message_user(request, f"Skipped workers that are gone: {gone}.", messages.WARNING)
        return recycle(self, request, [(worker, worker.pool, worker.worker_id) for worker in alive])


@admin.register(Node)
class NodeAdmin(ReadOnly):
    list_display = ("name", "labels", "version", "pid", "clock", "draining", "stopped", "started_at", "seen_at")
    search_fields = ("name", "address")
    actions = ("drain", "resume")

    @admin.action(description="Drain the selected nodes: refuse new calls", permissions=["operate"])
    def drain(self, request: HttpRequest, queryset: QuerySet[Node]) -> HttpResponse | None:
        return drain(self, request, list(queryset))

    @admin.action(description="Resume the selected nodes: take calls again", permissions=["operate"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Node]) -> None:
        resume(self, request, list(queryset))


@admin.register(Event)
class EventAdmin(ReadOnly):
    list_display = ("at", "level", "kind", "pool", "worker", "reason", "message")
    list_filter = ("level", "kind", "pool")
    search_fields = ("worker", "message")
    date_hierarchy = "at"
