"""`brand.toml` in a host's template folder: name, colours, logo and footer."""

from __future__ import annotations

import re
import tomllib
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import msgspec
from markupsafe import Markup
from msgspec import Meta, Struct

from tocsin.engine.model import InlineImage
from tocsin.engine.text import is_web_address
from tocsin.settings.addresses import parse_sender

FILE = "brand.toml"
MOST_LOGO_BYTES = 20_000
MOST_NAME_CHARACTERS = 200
CONTRAST = 4.5  # WCAG 2.2, 1.4.3, level AA
ACCENT = "#1d4ed8"  # as in email.css
_WHITE, _BLACK, _DARK_CARD = "#ffffff", "#000000", "#1e2128"  # the latter as in layout.html
_KINDS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif"}
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


class BrandError(Exception):
    """The file is not valid; `line` is None if it is not known."""

    def __init__(self, why: str, line: int | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.line = line


class Logo(Struct, frozen=True):
    """The picture above each mail."""

    src: str  # an https address, or cid: and the id of a picture in the mail
    alt: str
    width: int  # CSS pixels; the height follows


class Brand(Struct, frozen=True):
    """The variable `brand` of templates."""

    name: str | None = None  # in place of the name in TOCSIN_EMAIL_FROM
    accent: str = ACCENT
    style: Markup = Markup()  # rules for <style> that can't be inlined
    css: str = ""  # rules to inline
    logo: Logo | None = None
    footer: tuple[str, ...] = ()  # lines
    reply_to: str | None = None
    inbox: str = "/"  # where the app shows the inbox: a path or an address
    image: InlineImage | None = None  # the logo, where it travels with the mail
    accents: tuple[str, str] | None = None  # in light and dark mode, where the file has one


class _LogoFile(Struct, frozen=True, forbid_unknown_fields=True):
    src: str
    alt: str | None = None
    width: Annotated[int, Meta(ge=16, le=536)] = 160


class _BrandFile(Struct, frozen=True, forbid_unknown_fields=True):
    name: str | None = None
    accent: str | None = None
    accent_dark: str | None = None
    logo: _LogoFile | None = None
    footer: str = ""
    reply_to: str | None = None
    inbox: str = "/"


def read_brand(folder: Path) -> Brand:
    """Reads the brand of a folder; the default without the file. Raises BrandError."""
    try:
        text = (folder / FILE).read_text("utf-8")
    except FileNotFoundError:
        return Brand()
    except (OSError, UnicodeDecodeError) as error:
        raise BrandError(f"can't be read: {error}") from None
    file = _parsed(text)
    try:
        return _brand(file, folder)
    except BrandError as error:
        raise BrandError(error.why, _line_of(text, error.why.split()[0])) from None


def contrast(one: str, other: str) -> float:
    """Returns the contrast of two colours such as #1d4ed8, from 1 to 21 (WCAG 2.2)."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _parsed(text: str) -> _BrandFile:
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        why = re.sub(r" \(at .*\)", "", str(error))
        last = len(text.splitlines()) or 1  # for "end of document"
        raise BrandError(why, int(line[1]) if line else last) from None
    _refuse_unknown(text, found, _BrandFile)
    if isinstance(found.get("logo"), dict):
        _refuse_unknown(text, found["logo"], _LogoFile)
    try:
        return msgspec.convert(found, _BrandFile)
    except msgspec.ValidationError as error:
        path = re.search(r"`\$\.(?:\w+\.)*(\w+)`", str(error))
        why = re.sub(r" - at `\$\.?(.*)`", r": \1", str(error))
        raise BrandError(why, _line_of(text, path[1]) if path else None) from None


def _refuse_unknown(text: str, found: dict[str, Any], known: type[Struct]) -> None:
    for name in found:
        if name not in known.__struct_fields__:
            near = get_close_matches(name, known.__struct_fields__, 1)
            cure = f"did you mean {near[0]!r}?" if near else ", ".join(known.__struct_fields__)
            raise BrandError(f"unknown setting {name!r} ({cure})", _line_of(text, name))


def _line_of(text: str, name: str) -> int | None:
    """Returns the line of a key."""
    key = re.compile(rf'\s*(?:\[?\s*|.*[{{,]\s*)"?{re.escape(name.rpartition(".")[2])}"?\s*[=\]]')
    return next((n for n, line in enumerate(text.splitlines(), 1) if key.match(line)), None)


def _brand(file: _BrandFile, folder: Path) -> Brand:
    logo, image = _logo(file, folder) if file.logo else (None, None)
    accent = _colour("accent", file.accent, background=_WHITE) if file.accent else ACCENT
    css, style, accents = "", "", None
    if file.accent or file.accent_dark:
        dark = (
            _colour("accent_dark", file.accent_dark, background=_DARK_CARD)
            if file.accent_dark
            else _lighter(accent)
        )
        accents = (accent, dark)
        css, style = _light_css(accent), _light_style(accent) + _dark_style(dark)
    if file.reply_to is not None and not _is_sender(file.reply_to):
        raise BrandError(f"reply_to {file.reply_to!r} is not an address such as help@example.com")
    if file.name is not None and not (file.name.strip() and file.name.isprintable()):
        raise BrandError("name is empty, or has more than one line")
    if file.name is not None and len(file.name) > MOST_NAME_CHARACTERS:
        raise BrandError(f"name is longer than {MOST_NAME_CHARACTERS} characters")
    if not is_web_address(file.inbox):
        raise BrandError(f"inbox {file.inbox!r} is neither a path nor an http(s) address")
    return Brand(
        name=file.name,
        accent=accent,
        style=Markup(style),  # noqa: S704 - of checked colours alone
        css=css,
        logo=logo,
        footer=tuple(line.strip() for line in file.footer.strip().splitlines()),
        reply_to=file.reply_to,
        inbox=file.inbox,
        image=image,
        accents=accents,
    )


def _colour(key: str, colour: str, *, background: str) -> str:
    """Checks that a link in this colour is readable on its background."""
    if not _COLOUR.fullmatch(colour):
        raise BrandError(f"{key} {colour!r} is not a colour such as {ACCENT}")
    found = contrast(colour, background)
    if found < CONTRAST:
        where, cure = ("white", "darker") if background == _WHITE else ("the dark card", "lighter")
        raise BrandError(
            f"{key} {colour!r} has a contrast of {found:.1f}:1 on {where} ({background}), and links need "
            f"{CONTRAST}:1: take a {cure} one"
        )
    return colour.lower()


def _lighter(colour: str) -> str:
    """Returns the same hue, light enough for the dark card."""
    parts = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    for percent in range(0, 101, 5):
        mixed = "#" + "".join(f"{part + (255 - part) * percent // 100:02x}" for part in parts)
        if contrast(mixed, _DARK_CARD) >= CONTRAST:
            return mixed
    return _WHITE


def text_on(colour: str) -> str:
    """Returns the colour of a button's text: one of the two always has 4.5:1."""
    return _WHITE if contrast(colour, _WHITE) >= CONTRAST else _BLACK


def _light_css(accent: str) -> str:
    return (
        f"\n.item-link, .more-link {{ color: {accent}; }}\n.button-cell {{ background-color: {accent}; }}\n"
        f".button {{ background-color: {accent}; color: {text_on(accent)}; }}\n"
        f".plain-cell {{ border-color: {accent}; }}\n.plain-button {{ color: {accent}; }}\n"
    )


def _light_style(accent: str) -> str:
    return f".body a {{ color: {accent}; }}\n"


def _dark_style(accent: str) -> str:
    return (
        "@media (prefers-color-scheme: dark) {\n"
        f"  .item-link, .more-link, .plain-button, .body a {{ color: {accent} !important; }}\n"
        f"  .button, .button-cell {{ background-color: {accent} !important; border-color: {accent} !important; }}\n"
        f"  .button {{ color: {text_on(accent)} !important; }}\n}}\n"
    )


def _logo(file: _BrandFile, folder: Path) -> tuple[Logo, InlineImage | None]:
    assert file.logo is not None
    src, alt = file.logo.src, file.logo.alt or file.name
    if not alt:
        raise BrandError("logo has no alt text: describe the picture in it")
    image = None
    if not src.startswith("https://"):
        image = _image(src, folder)
        src = f"cid:{image.content_id}"
    return Logo(src, alt, file.logo.width), image


def _image(src: str, folder: Path) -> InlineImage:
    file = (folder / src).resolve()
    if "://" in src or not file.is_relative_to(folder.resolve()):
        raise BrandError(f"src {src!r} is neither an https address nor a file of this folder")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BrandError(f"src {src!r} can't be read: {error.strerror}") from None
    kind = next((kind for magic, kind in _KINDS.items() if content.startswith(magic)), None)
    if kind is None:
        raise BrandError(
            f"src {src!r} is not a PNG, JPEG or GIF, the formats that mail programs show"
        )
    if len(content) > MOST_LOGO_BYTES:
        raise BrandError(
            f"src {src!r} has {len(content):,} bytes: {MOST_LOGO_BYTES:,} at most travel in each mail"
        )
    return InlineImage(f"logo-{sha256(content).hexdigest()[:12]}", kind, content)


def _is_sender(text: str) -> bool:
    try:
        return bool(parse_sender(text))
    except ValueError:
        return False


def _luminance(colour: str) -> float:
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
