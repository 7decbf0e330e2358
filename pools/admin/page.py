"""What the admin's pages share: who may look, lists that count no further than they must, and orders by their name."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

from snakepit.pools import permissions
from snakepit.pools.operations import orders
from snakepit.pools.web.actor import order_of
from snakepit.pools.web.transactions import non_atomic

IN_ADMIN = "ordered in the admin"
COUNTED = 10_000  # rows; a list that has more says so by its last page


class CappedPaginator(Paginator):
    """Counts no further than COUNTED rows: counting a million takes seconds, and nobody pages to the end."""

    @cached_property
    def count(self) -> int:
        rows = cast("QuerySet[Any]", self.object_list)
        return rows.order_by()[:COUNTED].count()


class Page(admin.ModelAdmin):
    """Staff may look without being told so, as in the dashboard; all else by permission."""

    show_full_result_count = False
    paginator = CappedPaginator
    list_per_page = 50

    @non_atomic
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """The list and its actions. An action notifies the broker, which must find the changed row committed."""
        return super().changelist_view(request, extra_context)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        granted = permissions.of(request.user)
        return f"view_{self.opts.model_name}" in granted or super().has_view_permission(request, obj)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) or super().has_module_permission(request)

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Asked for by the actions on pools and workers."""
        return permissions.NEEDS["recycle"] in permissions.of(request.user)

    def has_manage_permission(self, request: HttpRequest) -> bool:
        """Asked for by the actions on jobs."""
        return permissions.NEEDS["cancel_job"] in permissions.of(request.user)


class ReadOnly(Page):
    """Rows that are written elsewhere: whoever may see them may see them, and nobody may write."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def order(request: HttpRequest) -> orders.Order:
    """Who orders, and why, as the form says."""
    reason = request.POST.get("reason", "").strip()[: orders.MAX_REASON] or IN_ADMIN
    return order_of(request, reason, "admin")


def log(request: HttpRequest, row: Any, text: str) -> None:
    """The admin's own history of a row."""
    assert request.user.pk is not None
    LogEntry.objects.log_actions(request.user.pk, [row], CHANGE, change_message=text, single_object=True)
