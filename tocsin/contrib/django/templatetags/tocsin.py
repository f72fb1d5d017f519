"""{% load tocsin %}{% tocsin_bell %}: the bell of the person who is signed in, with their token."""

from __future__ import annotations

from typing import Any

from django import template
from django.core.exceptions import ImproperlyConfigured
from django.urls import NoReverseMatch, reverse

from tocsin.contrib.django.conf import options
from tocsin.contrib.django.people import token_for

register = template.Library()


@register.inclusion_tag("tocsin/bell.html", takes_context=True)
def tocsin_bell(context: Any, **attributes: str) -> dict[str, object]:
    """`<tocsin-bell>` and its module for `request.user`, nothing for others; further attributes are passed on.

    `{% tocsin_bell theme="dark" title_count="" %}`. Where `tocsin.contrib.django.urls` is included, the bell fetches
    its next token from there.
    """
    user = _user(context)
    if user is None:
        return {}
    if options().service_url is None:
        raise ImproperlyConfigured('TOCSIN["SERVICE_URL"] is not set: Tocsin\'s public URL.')
    return {
        "service": str(options().service_url).rstrip("/"),
        "token": token_for(user),
        "token_url": _token_url(),
        "attributes": {name.replace("_", "-"): value for name, value in attributes.items()},
    }


@register.simple_tag(takes_context=True)
def tocsin_token(context: Any) -> str:
    """Returns the JWT of `request.user`, for a page's own script; empty if nobody is signed in."""
    user = _user(context)
    return "" if user is None else token_for(user)


def _user(context: Any) -> Any:
    request = context.get("request")
    user = getattr(request, "user", None) or context.get("user")
    return user if user is not None and user.is_authenticated else None


def _token_url() -> str | None:
    try:
        return str(reverse("tocsin:token"))
    except NoReverseMatch:
        return None
