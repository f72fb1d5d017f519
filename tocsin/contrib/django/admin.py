"""The admin page that shows why a person was or was not notified."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from tocsin.contrib.django.conf import options
from tocsin.contrib.django.models import Decision
from tocsin.sql import load

_WHY = load("django")["why"]
_MOST = 50  # notifications on the page


class Search(forms.Form):
    """Whose notifications, or those of which event."""

    recipient = forms.CharField(required=False, label="Recipient's id", max_length=200)
    event = forms.IntegerField(required=False, label="Event's id", min_value=1)


@admin.register(Decision)
class DecisionAdmin(admin.ModelAdmin):
    """A search by recipient and event, for staff with the permission `tocsin.view_decision`."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Returns the page; it takes the place of a list of objects."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        search = Search(request.GET or None)
        found: list[dict[str, Any]] = []
        asked = search.is_valid() and any(search.cleaned_data.values())
        fault = ""
        if asked:
            try:
                found = _why(search.cleaned_data["recipient"] or None, search.cleaned_data["event"])
            except DatabaseError as error:
                fault = str(error).splitlines()[0]
        context = {
            **self.admin_site.each_context(request),
            "title": "Why was a person notified?",
            "opts": self.model._meta,
            "search": search,
            "asked": asked,
            "fault": fault,
            "notifications": found,
            "most": _MOST,
        }
        return TemplateResponse(request, "admin/tocsin/why.html", context)


def _why(recipient: str | None, event: int | None) -> list[dict[str, Any]]:
    """Returns the newest notifications, each with its channels."""
    alias = options().database
    # a savepoint: with ATOMIC_REQUESTS a refused call must not break the page's transaction
    with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
        cursor.execute(_WHY, {"recipient": recipient, "event_id": event, "max_rows": _MOST})
        names = [column.name for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return [
        {**channels[0], "channels": [_explained(each) for each in channels]}
        for channels in (
            list(group) for _, group in groupby(rows, lambda row: row["notification_id"])
        )
    ]


def _explained(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a channel with what its reasons mean."""
    deliveries = row["deliveries"]
    if isinstance(deliveries, str):  # Django reads jsonb as text
        deliveries = json.loads(deliveries)
    for each in deliveries:
        each["meaning"] = _meaning("delivery_reason", each["reason"])
    return {**row, "deliveries": deliveries, "meaning": _meaning("decision_reason", row["reason"])}


def _meaning(table: str, code: str | None) -> str:
    """Returns what a reason means and what to do; empty without `tocsin[server]`, which has the table of reasons."""
    try:
        from tocsin.engine.explain import reasons
    except ImportError:
        return ""
    row = getattr(reasons, table)(code or "")
    return f"{row.meaning} {row.cure}" if row else ""
