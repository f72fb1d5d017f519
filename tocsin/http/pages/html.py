"""The few HTML pages: calm, mostly without scripts, and without a word from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import Response

from tocsin.engine.mail.language import language_of
from tocsin.http.pages.reader import Reader

_STYLE = (files("tocsin.http.pages") / "templates" / "page.css").read_text(encoding="utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
# Modules of our own and calls of our own; and no text becomes markup.
_SCRIPTS = "; script-src 'self'; connect-src 'self'; require-trusted-types-for 'script'; trusted-types 'none'"
PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",  # the address holds a token
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "interest-cohort=()",
}

_TEMPLATES = Environment(
    loader=PackageLoader("tocsin.http.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals["style"] = _STYLE
_TEMPLATES.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)


def html(
    template: str,
    status: int = 200,
    reader: Reader | None = None,
    *,
    scripts: bool = False,
    **values: Any,
) -> Response[str]:
    """A page from `templates/`, in English where nobody says who reads it; `scripts`: with modules of our own."""
    language = reader.language if reader else language_of(None)
    said = {
        "_": language.catalogue.gettext,
        "lang": language.words_tag,
        "dir": language.words_direction,
    }
    policy = {"Content-Security-Policy": _POLICY + _SCRIPTS} if scripts else {}
    return Response(
        _TEMPLATES.get_template(template).render(said | values),
        status_code=status,
        media_type="text/html",
        headers=PAGE_HEADERS | policy,
    )
