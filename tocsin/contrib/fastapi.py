"""Tocsin in FastAPI: the route from which the bell fetches the token of the person who is signed in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Response

from tocsin.contrib.bell import LIFETIME, TOKEN_MODULE, TOKEN_PATH, bell_html, person_token

__all__ = ["bell_html", "person_token", "token_router"]


def token_router(
    person: Callable[..., Any],
    signing_key: str,
    *,
    path: str = TOKEN_PATH,
    algorithm: str = "HS256",
    lifetime: timedelta = LIFETIME,
    audience: str | None = None,
    issuer: str | None = None,
) -> APIRouter:
    """Returns a router with `GET path`, the token as text, and `GET path.js`, the module that gives it to the bell.

    `person` is the app's dependency that returns the id of the person who is signed in; None is a 401. The other
    arguments are those of `person_token`.
    """
    router = APIRouter()
    signed_in = Depends(person)

    def token(found: Any = signed_in) -> Response:
        """Returns the token of the person who is signed in, for the bell."""
        if found is None:
            raise HTTPException(401, "Nobody is signed in.")
        text = person_token(
            found,
            signing_key,
            algorithm=algorithm,
            lifetime=lifetime,
            audience=audience,
            issuer=issuer,
        )
        return Response(text, media_type="text/plain", headers={"Cache-Control": "no-store"})

    def token_module() -> Response:
        """Returns the module that lets the bell fetch its token."""
        return Response(TOKEN_MODULE, media_type="text/javascript")

    router.add_api_route(path, token, methods=["GET"], include_in_schema=False)
    router.add_api_route(f"{path}.js", token_module, methods=["GET"], include_in_schema=False)
    return router
