"""The pages of `make up` under /dev/. Each has its own script and style sheet, and loads nothing from other hosts."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import Response

ASSETS = files("tocsin.dev.pages") / "assets"

# Headers for untrusted HTML, such as a mail's: no script, no form, nothing loaded.
INERT = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        "sandbox allow-popups allow-popups-to-escape-sandbox"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

_TEMPLATES = Environment(
    loader=PackageLoader("tocsin.dev.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def html(template: str, status: int = 200, **values: Any) -> Response[str]:
    """A page from `templates/`."""
    return Response(
        _TEMPLATES.get_template(template).render(values),
        status_code=status,
        media_type="text/html",
        headers=_HEADERS,
    )
