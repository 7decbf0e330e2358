"""Shared by the admin's pages: permissions, lists with a capped row count, orders and the admin's history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.views.main import ERROR_FLAG
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseRedirect
from django.utils.functional import cached_property

from snakepit.pools import permissions
from snakepit.pools.operations import orders
from snakepit.pools.web.actor import order_of
from snakepit.pools.web.transactions import non_atomic

if TYPE_CHECKING:  # Django's classes take no type arguments at run time
    AnyModelAdmin = admin.ModelAdmin[Any]
    AnyPaginator = Paginator[Any]
else:
    AnyModelAdmin, AnyPaginator = admin.ModelAdmin, Paginator

IN_ADMIN = "ordered in the admin"
COUNTED = 10_000  # rows; a list ends there


class AtLeast(int):
    """A number of rows where the count ended. Its text says that there may be more."""

    def __str__(self) -> str:
        return f"{int(self):,} or more"


class CappedPaginator(AnyPaginator):
    """Counts at most COUNTED rows, because counting a million takes seconds."""

    @cached_property
    def count(self) -> int:
        rows = cast("QuerySet[Any]", self.object_list)
        found = rows.order_by()[:COUNTED].count()
        return AtLeast(found) if found >= COUNTED else found


def without_payload(request: HttpRequest, *columns: str) -> tuple[str, ...]:
    """These columns, unless the user may see the payload of jobs."""
    return () if "view_payload" in permissions.of(request.user) else columns


class Page(AnyModelAdmin):
    """Staff can view without a grant, as in the dashboard; everything else needs a permission."""

    show_full_result_count = False
    paginator = CappedPaginator
    list_per_page = 50

    @non_atomic
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """The list and its actions. An action notifies the broker, which must find the changed row committed."""
        if "\0" in unquote(request.META.get("QUERY_STRING", "")):  # PostgreSQL refuses it: an error 500
            return HttpResponseRedirect(f"{request.path}?{ERROR_FLAG}=1")  # as Django for other wrong filters
        if not self._are_keys(request.POST.getlist(ACTION_CHECKBOX_NAME)):  # for Django, an error 500
            self.message_user(request, "The selection is not of rows of this list: select them again.", messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())
        try:
            return super().changelist_view(request, extra_context)
        except OverflowError:  # the last day of the calendar has no next one, which Django computes
            return HttpResponseRedirect(f"{request.path}?{ERROR_FLAG}=1")

    def _are_keys(self, selected: list[str]) -> bool:
        key = self.opts.pk
        try:
            return all(key is not None and key.to_python(one) is not None for one in selected)
        except ValidationError:
            return False

    def hidden_fields(self, request: HttpRequest) -> tuple[str, ...]:
        """The columns that this user may not read in any row."""
        return ()

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Refuse a filter by a hidden column: Django allows each column of the table, and the matches reveal it."""
        hidden = lookup.partition("__")[0] in self.hidden_fields(request)
        return not hidden and super().lookup_allowed(lookup, value, request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        granted = permissions.of(request.user)
        return f"view_{self.opts.model_name}" in granted or super().has_view_permission(request, obj)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) or super().has_module_permission(request)

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Required by the actions on pools, workers and nodes."""
        return permissions.NEEDS["recycle"] in permissions.of(request.user)

    def has_manage_permission(self, request: HttpRequest) -> bool:
        """Required by the actions on jobs."""
        return permissions.NEEDS["cancel_job"] in permissions.of(request.user)


class ReadOnly(Page):
    """Rows that other code writes: no permission allows to add, change or delete them here."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def order(request: HttpRequest) -> orders.Order:
    """The signed-in user and the reason from the form."""
    reason = request.POST.get("reason", "").strip()[: orders.MAX_REASON] or IN_ADMIN
    return order_of(request, reason, "admin")


def log(request: HttpRequest, row: Any, text: str) -> None:
    """The admin's own history of a row."""
    assert request.user.pk is not None
    LogEntry.objects.log_actions(request.user.pk, [row], CHANGE, change_message=text, single_object=True)
