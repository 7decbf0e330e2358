"""Scale in the admin: a form for size and reason, then one order per pool."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from snakepit.pools.admin.page import log, order
from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.spec import FIELDS
from snakepit.pools.models import Pool
from snakepit.pools.web import scale as web_scale


class ScaleForm(forms.Form):
    size = forms.IntegerField(min_value=1, help_text=FIELDS["size"].metadata.get("help", ""))
    reason = forms.CharField(label="Reason", max_length=200, required=False, widget=forms.TextInput(attrs={"size": 60}))


def scale(page: admin.ModelAdmin[Any], request: HttpRequest, pools: Iterable[Pool]) -> HttpResponse | None:
    """Confirm, then scale each pool. An error of one pool does not stop the others."""
    rows = list(pools)
    confirmed = request.POST.get("confirmed") == "yes"
    form = ScaleForm(request.POST if confirmed else None)
    if not confirmed or not form.is_valid():
        context = {
            **page.admin_site.each_context(request),
            "title": "Scale these pools?",
            "form": form,
            "rows": rows,
            "back": request.get_full_path(),
        }
        return TemplateResponse(request, "snakepit/scale_confirm.html", context)
    given, size = order(request), form.cleaned_data["size"]
    for pool in rows:
        try:
            done = web_scale.scale(pool.name, size, given)
        except BrokerError as error:
            page.message_user(request, f"{pool}: {error.message}", messages.ERROR)
            continue
        text = f"Scaled from {pool.size} to {size}."
        log(request, pool, f"{text} Reason: {given.reason}")
        level = messages.SUCCESS if done.in_force else messages.WARNING
        page.message_user(request, f"{pool}: {text} {done.note}".strip(), level)
    return None
