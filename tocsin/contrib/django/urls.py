"""`path("tocsin/", include("tocsin.contrib.django.urls"))`: the view from which the bell fetches its next token."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from tocsin.contrib.django.people import token_for


@require_GET
@never_cache
def token(request: HttpRequest) -> JsonResponse:
    """`{"token": …}` for the person who is signed in, or 403."""
    if not request.user.is_authenticated:
        return JsonResponse({"detail": "Nobody is signed in."}, status=403)
    return JsonResponse({"token": token_for(request.user)})


app_name = "tocsin"
urlpatterns = [path("token/", token, name="token")]
