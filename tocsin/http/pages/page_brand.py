"""The host's brand on the pages: name, logo and accent of `brand.toml`, as in mails."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from markupsafe import Markup
from msgspec import Struct

from tocsin.engine.mail.brand import Brand, Logo, text_on
from tocsin.engine.mail.loader import TemplateFailed, Templates


class PageBrand(Struct, frozen=True):
    """What the layout of the pages shows, and what its Content-Security-Policy has to allow for it."""

    name: str | None = None
    logo: Logo | None = None
    style: Markup = Markup()

    @property
    def style_source(self) -> str:
        """The source of the style sheet, with a space before it."""
        if not self.style:
            return ""
        digest = hashlib.sha256(self.style.encode()).digest()
        return f" 'sha256-{base64.b64encode(digest).decode()}'"

    @property
    def image_policy(self) -> str:
        """The part of the policy for the logo."""
        if self.logo is None:
            return ""
        where = urlsplit(self.logo.src)
        return "; img-src " + ("data:" if where.scheme == "data" else f"https://{where.netloc}")


NO_BRAND = PageBrand()


@lru_cache(maxsize=4)
def page_brand(folder: Path | None) -> PageBrand:
    """Returns the brand of a template folder, read once; none if there is no valid one."""
    try:
        brand = Templates(folder).brand
    except TemplateFailed:  # workers report it as they start
        return NO_BRAND
    return PageBrand(brand.name, _logo(brand), _style(brand))


def _logo(brand: Brand) -> Logo | None:
    if brand.logo is None or brand.image is None:
        return brand.logo
    content = base64.b64encode(brand.image.content).decode()
    return Logo(f"data:image/{brand.image.kind};base64,{content}", brand.logo.alt, brand.logo.width)


def _style(brand: Brand) -> Markup:
    if brand.accents is None:
        return Markup()
    rules = [
        f"@media (prefers-color-scheme: {scheme}) {{ :root {{ --accent: {accent}; --on-accent: {text_on(accent)}; "
        f"--paper: {paper} }} }}"
        for scheme, accent, paper in zip(
            ("light", "dark"), brand.accents, ("#ffffff", "#1e2128"), strict=True
        )
    ]
    return Markup("\n".join(rules))  # noqa: S704 - of checked colours alone
