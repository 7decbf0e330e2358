"""The audit log in the admin, read-only."""

from __future__ import annotations

from django.contrib import admin

from snakepit.pools.admin.page import ReadOnly
from snakepit.pools.models import Audit


@admin.register(Audit)
class AuditAdmin(ReadOnly):
    list_display = ("at", "actor", "action", "pool", "target", "outcome", "reason", "surface", "address")
    list_filter = ("surface", "action", "outcome")
    search_fields = ("actor", "target", "pool", "reason")
    date_hierarchy = "at"
