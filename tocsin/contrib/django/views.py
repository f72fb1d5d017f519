"""The view from which the bell fetches its token."""

from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from tocsin.contrib.django.tokens import token_for


@require_GET
@never_cache
def token(request: HttpRequest) -> JsonResponse:
    """`{"token": …}` for the person who is signed in, or 403."""
    if not request.user.is_authenticated:
        return JsonResponse({"detail": "Nobody is signed in."}, status=403)
    return JsonResponse({"token": token_for(request.user)})
