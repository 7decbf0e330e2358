"""API keys in the admin: their owners create and revoke them; the secret is shown once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import quote
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from snakepit.pools import permissions
from snakepit.pools.admin.page import Page, log, order
from snakepit.pools.broker.caller import LIMITS
from snakepit.pools.models import ApiKey, Pool
from snakepit.pools.operations import orders
from snakepit.pools.web.headers import UNCACHED

if TYPE_CHECKING:  # Django's class takes no type arguments at run time
    ApiKeyModelForm = forms.ModelForm[ApiKey]
else:
    ApiKeyModelForm = forms.ModelForm


class ApiKeyForm(ApiKeyModelForm):
    """Scopes and pools as check boxes. Users can grant only scopes whose permissions they have."""

    request: HttpRequest
    scopes = forms.MultipleChoiceField(
        choices=[(scope, f"{scope}: {what}") for scope, what in permissions.SCOPE_HELP.items()],
        widget=forms.CheckboxSelectMultiple,
    )
    pools = forms.MultipleChoiceField(
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="The pools that the key may use. None chosen: all pools, also those of later.",
        error_messages={"invalid_choice": "No pool is named '%(value)s'."},
    )

    limits = forms.JSONField(
        required=False,
        empty_value={},
        initial=dict,
        help_text=f'Limits of this key as JSON, such as {{"calls_per_second": 50}}: {", ".join(LIMITS)}. '
        "Others are those of the setting KEY_LIMITS; 0 is no limit.",
    )

    class Meta:
        model = ApiKey
        fields = ("name", "scopes", "pools", "limits", "expires_at")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["pools"] = self.instance.pools
        known = set(Pool.objects.values_list("name", flat=True))
        gone = {name: f"{name} (no such pool now)" for name in self.instance.pools if name not in known}
        names = dict.fromkeys(known) | gone
        field: Any = self.fields["pools"]
        field.choices = [(name, gone.get(name, name)) for name in sorted(names)]

    def clean_scopes(self) -> list[str]:
        scopes: list[str] = self.cleaned_data["scopes"]
        for scope in scopes:
            if not permissions.SCOPES[scope].permissions <= permissions.of(self.request.user):
                raise forms.ValidationError(f"You cannot grant the scope {scope!r}: you do not have its permissions.")
        return scopes


@admin.register(ApiKey)
class ApiKeyAdmin(Page):
    form = ApiKeyForm
    list_display = ("name", "prefix", "owner", "scopes", "created_at", "expires_at", "last_used_at", "revoked_at")
    list_filter = ("revoked_at",)
    list_select_related = ("owner",)
    search_fields = ("name", "prefix", "owner__username")
    readonly_fields = ("owner", "prefix", "created_at", "last_used_at", "revoked_at")
    actions = ("rotate", "revoke")

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        mine = ("name", "scopes", "pools", "limits", "expires_at")
        return (*mine, *self.readonly_fields) if obj else mine

    def hidden_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return ("digest",)

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

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        with orders.recorded(order(request), "change_key" if change else "add_key", target=str(obj)) as record:
            super().save_model(request, obj, form, change)
            record.data = {"scopes": obj.scopes, "pools": obj.pools, "limits": obj.limits}

    def delete_model(self, request: HttpRequest, obj: ApiKey) -> None:
        with orders.recorded(order(request), "delete_key", target=str(obj)):
            super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        for key in queryset.select_related("owner"):
            self.delete_model(request, key)

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        return self._show_secret(request, obj, obj.secret)  # type: ignore[attr-defined]

    def _show_secret(
        self, request: HttpRequest, obj: ApiKey, secret: str, before: ApiKey | None = None
    ) -> HttpResponse:
        """The only page that shows a secret. Not a message, because Django may store messages in a cookie."""
        context = {
            **self.admin_site.each_context(request),
            "title": "The new API key",
            "key": obj,
            "before": before,
            "secret": secret,
            "change_url": reverse("admin:snakepit_pools_apikey_change", args=(quote(obj.pk),)),
        }
        response = TemplateResponse(request, "snakepit/apikey_secret.html", context)
        response["Cache-Control"] = UNCACHED
        return response

    @admin.action(description="Rotate the selected key: make a successor, and let this one expire", permissions=["add"])
    def rotate(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        keys = list(queryset.select_related("owner")[:2])
        if len(keys) != 1:
            self.message_user(request, "Select one key: the page after this shows one secret.", messages.ERROR)
            return None
        key = keys[0]
        if key.owner_id != request.user.pk or not key.usable:
            why = "it is not valid any more" if key.owner_id == request.user.pk else f"it belongs to {key.owner}"
            self.message_user(request, f"{key} cannot be rotated: {why}.", messages.ERROR)
            return None
        lost = [one for one in key.scopes if not permissions.SCOPES[one].permissions <= permissions.of(request.user)]
        if lost:
            self.message_user(request, f"{key} cannot be rotated: you lost its scope {lost[0]!r}.", messages.ERROR)
            return None
        with orders.recorded(order(request), "rotate_key", target=str(key)) as record:
            successor, secret = key.rotate()
            record.message = f"successor {successor.prefix}; valid until {key.expires_at:%Y-%m-%d %H:%M} UTC"
        log(request, key, "Rotated.")
        return self._show_secret(request, successor, secret, key)

    @admin.action(description="Revoke the selected keys", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        given = order(request)
        for key in queryset.select_related("owner"):
            if not _may_touch(request, key):
                self.message_user(request, f"{key} belongs to {key.owner}: you cannot revoke it.", messages.ERROR)
                continue
            with orders.recorded(given, "revoke_key", target=str(key)):
                key.revoke()
            log(request, key, "Revoked.")
            self.message_user(request, f"{key} is revoked.", messages.SUCCESS)


def _may_touch(request: HttpRequest, key: ApiKey | None) -> bool:
    return key is None or request.user.is_superuser or key.owner_id == request.user.pk
