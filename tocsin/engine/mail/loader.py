"""The templates of mails: ours, and over them those of the host app's own folder.

A name such as `notifications/layout.html` is looked for in the host's folder, then among ours;
`tocsin/notifications/layout.html` is always ours, so that an override can extend what it overrides.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import Any

import css_inline
from jinja2 import (
    BaseLoader,
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PrefixLoader,
    Template,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
)
from msgspec import Struct

from tocsin.engine.mail.brand import FILE as BRAND
from tocsin.engine.mail.brand import Brand, BrandError, read_brand
from tocsin.engine.mail.language import Words
from tocsin.engine.mail.precompiled import Stencils
from tocsin.engine.mail.sandbox import Sandbox, TemplateTooMuch, rendered, said

# What can be wrong with a template: its file, the line where it is known, and why, in one line.


class Problem(Struct, frozen=True, order=True):
    """What a check found: `str()` is the line."""

    name: str
    line: int | None
    why: str
    stray: bool = False  # it harms no mail: a template for an event type that is not there

    def __str__(self) -> str:
        return f"{self.name}{f':{self.line}' if self.line else ''}: {self.why}"


class TemplateFailed(Exception):
    """A mail's template failed."""

    def __init__(self, name: str, line: int | None, why: str) -> None:
        self.problem = Problem(name, line, why)
        super().__init__(str(self.problem))


class TemplatesError(Exception):
    """Templates that would fail: a line for each problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(each) for each in problems))


# Inlines CSS into a mail template, once per template and not once per mail.
#
# An HTML parser would tear Jinja's tags apart, so each stands in for itself as a placeholder while the
# CSS is inlined: a comment where text may stand (also between table rows, where a parser would move
# text elsewhere), a plain word inside a tag, a comment, <style> or <title>.

_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_MARKUP = re.compile(
    r"<!--.*?-->|<style\b.*?</style>|<title\b.*?</title>|<[^>]*>", re.DOTALL | re.IGNORECASE
)
_WORD = re.compile(r"jinja(\d+)tag")
_PLACEHOLDER = re.compile(r"<!--jinja(\d+)tag-->|jinja(\d+)tag")


def inline_css(source: str, css: str) -> str:
    """The template with the rules of `css` as style attributes; its own <style> stays as it is.

    A tag of Jinja may stand in text and in attribute values; elsewhere it would not survive, which
    raises ValueError.
    """
    tags: list[str] = []

    def put_by(tag: re.Match[str]) -> str:
        tags.append(tag[0])
        return f"jinja{len(tags) - 1}tag"

    html = _as_comments(_JINJA.sub(put_by, source))
    if re.match(r"\s*<!doctype", html, re.IGNORECASE):
        inliner = css_inline.CSSInliner(
            inline_style_tags=False,
            keep_style_tags=True,
            load_remote_stylesheets=False,
            extra_css=css,
        )
        inlined = inliner.inline(html)
    else:
        inlined = css_inline.inline_fragment(html, css, load_remote_stylesheets=False)
    found = [int(comment or word) for comment, word in _PLACEHOLDER.findall(inlined)]
    if sorted(found) != list(range(len(tags))):  # sorted: attributes may change places
        raise ValueError("a Jinja tag stands where the CSS can't be inlined around it")
    return _PLACEHOLDER.sub(lambda match: tags[int(match[1] or match[2])], inlined)


def _as_comments(html: str) -> str:
    """Makes comments of the placeholders outside all markup."""
    pieces: list[str] = []
    end = 0
    for markup in _MARKUP.finditer(html):
        pieces += (_WORD.sub(r"<!--\g<0>-->", html[end : markup.start()]), markup[0])
        end = markup.end()
    return "".join((*pieces, _WORD.sub(r"<!--\g<0>-->", html[end:])))


SHIPPED = Path(__file__).parent / "templates"
WORDS = "words"
OURS = "tocsin"  # the prefix of what is always ours
STYLESHEET = "notifications/email.css"
MOST_BYTES = 200_000  # of one file

_IMPORT = re.compile(rf'@import "{OURS}/{STYLESHEET}";')

Loaded = tuple[str, str | None, Callable[[], bool] | None]


class Templates:
    """The templates of one service; `folder` is the host's own. With `reload`, a file that changed is read anew."""

    def __init__(
        self, folder: Path | None = None, *, reload: bool = False, inline: bool = True
    ) -> None:
        self.folder = folder
        self._inline = inline
        self._reload = reload
        self._version = ""
        self._brand: Brand | None = None
        self._environment: Sandbox | None = None
        self._chosen: dict[tuple[str, ...], Template] = {}
        self.stencils: Stencils | None = Stencils()

    def render(self, names: Sequence[str], context: Mapping[str, Any]) -> str:
        """What the first of these templates that is there writes; raises TemplateFailed."""
        self.look_again()
        try:
            return rendered(self._choose(tuple(names)), context)
        except Exception as error:
            raise self.failure(error, names[-1]) from error

    def said(self, names: Sequence[str], context: Mapping[str, Any]) -> dict[str, Any]:
        """What the first of these templates that is there sets; raises TemplateFailed."""
        self.look_again()
        try:
            return said(self._choose(tuple(names)), context)
        except Exception as error:
            raise self.failure(error, names[-1]) from error

    @property
    def environment(self) -> Sandbox:
        """Jinja's, made when it is first asked for."""
        if self._environment is None:
            brand = self.brand
            loader = _Loader(self.folder, brand.css, inline=self._inline)
            self._environment = Sandbox(loader=loader, auto_reload=False)
            self._environment.globals["brand"] = brand
        return self._environment

    @property
    def brand(self) -> Brand:
        """What `brand.toml` says; raises TemplateFailed."""
        if self._brand is None:
            try:
                self._brand = read_brand(self.folder) if self.folder else Brand()
            except BrandError as error:
                raise TemplateFailed(BRAND, error.line, error.why) from None
        return self._brand

    @property
    def words(self) -> Words | None:
        """The host's own catalogues, if there are any."""
        if self.folder is None or not (self.folder / WORDS).is_dir():
            return None
        self.look_again()
        return Words(self.folder / WORDS, self._version)

    def version(self) -> str:
        """Another one as soon as any file changed."""
        told = hashlib.sha256()
        for root in filter(None, (self.folder, SHIPPED)):
            for file in sorted(root.rglob("*")):
                with suppress(OSError):
                    found = file.stat()
                    told.update(f"{file}\0{found.st_mtime_ns}\0{found.st_size}\0".encode())
        return told.hexdigest()[:16]

    def file(self, name: str) -> Path | None:
        """Where a template is, by its name."""
        if name.startswith(f"{OURS}/"):
            places = [SHIPPED / name.removeprefix(f"{OURS}/")]
        else:
            places = [root / name for root in (self.folder, SHIPPED) if root]
        return next((place for place in places if place.is_file()), None)

    def failure(self, error: Exception, name: str) -> TemplateFailed:
        """An error as one line; `name` is what was to be rendered."""
        if isinstance(error, TemplateFailed):
            return error
        if isinstance(error, TemplateSyntaxError):
            return TemplateFailed(self._name(error.filename) or name, error.lineno, _why(error))
        place = self._place(error.__traceback__) or (name, None)
        return TemplateFailed(*place, _why(error))

    def look_again(self) -> None:
        """With `reload`, forgets what changed."""
        if self._reload and (version := self.version()) != self._version:
            self._version = version
            self._brand = self._environment = None
            self._chosen.clear()
            if self.stencils is not None:
                self.stencils.clear()

    def _choose(self, names: tuple[str, ...]) -> Template:
        if names not in self._chosen:
            self._chosen[names] = self.environment.select_template(list(names))
        return self._chosen[names]

    def _place(self, traceback: TracebackType | None) -> tuple[str, int | None] | None:
        """The innermost line of a template, which Jinja puts into tracebacks."""
        found = None
        for frame, line in walk_tb(traceback):
            if name := self._name(frame.f_code.co_filename):
                found = name, line
        return found

    def _name(self, filename: str | None) -> str | None:
        if filename and not filename.endswith(".py"):
            file = Path(filename)
            if self.folder and file.is_relative_to(self.folder):
                return file.relative_to(self.folder).as_posix()
            if file.is_relative_to(SHIPPED):
                return f"{OURS}/{file.relative_to(SHIPPED).as_posix()}"
        return None


def names_of(event_type: str, kind: str) -> tuple[str, ...]:
    """Of an event type's own template, its category's, and the one for all; `kind` is html, txt or words.txt."""
    category, _, name = event_type.partition(".")
    return (
        f"notifications/{category}/{name}.{kind}",
        f"notifications/{category}/email.{kind}",
        f"notifications/email.{kind}",
    )


class _Loader(BaseLoader):
    """Files of both folders, the HTML ones with the style sheet inlined."""

    def __init__(self, folder: Path | None, more_css: str, *, inline: bool) -> None:
        ours = FileSystemLoader(SHIPPED)
        theirs = [FileSystemLoader(folder)] if folder else []
        self._files = ChoiceLoader([PrefixLoader({OURS: ours}), *theirs, ours])
        self._css = _stylesheet(folder) + more_css
        self._inline = inline

    def get_source(self, environment: Environment, template: str) -> Loaded:
        """What Jinja asks of a loader."""
        source, path, unchanged = self._files.get_source(environment, template)
        if len(source.encode()) > MOST_BYTES:
            raise TemplateSyntaxError(f"it has more than {MOST_BYTES:,} bytes", 1, template, path)
        if self._inline and template.endswith(".html"):
            try:
                source = inline_css(source, self._css)
            except ValueError as error:
                raise TemplateSyntaxError(str(error), 1, template, path) from error
        return source, path, unchanged

    def list_templates(self) -> list[str]:
        """All that can be loaded."""
        return self._files.list_templates()


def _stylesheet(folder: Path | None) -> str:
    """The host's, or ours; the host's may import ours."""
    ours = (SHIPPED / STYLESHEET).read_text("utf-8")
    if folder is None or not (folder / STYLESHEET).is_file():
        return ours
    try:
        return _IMPORT.sub(lambda _: ours, (folder / STYLESHEET).read_text("utf-8"), count=1)
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateFailed(STYLESHEET, None, _why(error)) from None


def _why(error: Exception) -> str:
    """What is wrong, in one line, without what the mail says."""
    if isinstance(error, RecursionError):
        return f"it includes or extends itself: write {OURS}/ before the name to reach the one that it overrides"
    if isinstance(error, UnicodeDecodeError):
        return "it is not in UTF-8"
    if isinstance(error, TemplateNotFound):
        return f"there is no template {error.name!r}"
    if isinstance(error, TemplateError | TemplateTooMuch):
        return " ".join(str(error.args[0] if error.args else error).split()).rstrip(".")
    return f"{type(error).__name__} in an expression"


DEFAULT = Templates()
"""Ours alone."""
