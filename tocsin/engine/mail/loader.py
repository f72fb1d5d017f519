"""The templates of mails: the shipped ones, and over them those of the host app's own folder.

A name such as `notifications/layout.html` is searched in the host's folder, then among the shipped ones;
`tocsin/notifications/layout.html` is always the shipped one, so that an override can extend what it overrides.
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
from tocsin.engine.mail.sandbox import Sandbox, exported_variables, render_template


class TemplateProblem(Struct, frozen=True, order=True):
    """A mistake in a template: its file, the line if it is known, and what is wrong. `str()` is all in one line."""

    name: str
    line: int | None
    why: str
    stray: bool = False  # no mail uses it: there is no such event type

    def __str__(self) -> str:
        return f"{self.name}{f':{self.line}' if self.line else ''}: {self.why}"


class TemplateFailed(Exception):
    """A template could not be loaded or rendered."""

    def __init__(self, name: str, line: int | None, why: str) -> None:
        self.problem = TemplateProblem(name, line, why)
        super().__init__(str(self.problem))


class TemplatesError(Exception):
    """Templates that would fail: a line for each problem."""

    def __init__(self, problems: Sequence[TemplateProblem]) -> None:
        super().__init__("\n".join(str(each) for each in problems))


# CSS is inlined into a template as it is loaded, not into each mail. An HTML parser would tear Jinja's tags apart, so
# each is replaced meanwhile: by a comment where text may stand (also between table rows, where a parser would move text
# elsewhere), by a word inside a tag, a comment, <style> or <title>.

_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_MARKUP = re.compile(
    r"<!--.*?-->|<style\b.*?</style>|<title\b.*?</title>|<[^>]*>", re.DOTALL | re.IGNORECASE
)
_WORD = re.compile(r"jinja(\d+)tag")
_REPLACED = re.compile(r"<!--jinja(\d+)tag-->|jinja(\d+)tag")


def inline_css(source: str, css: str) -> str:
    """Returns the template with the rules of `css` as style attributes; its own <style> stays as it is.

    Raises ValueError if a tag of Jinja is neither in text nor in an attribute's value.
    """
    tags: list[str] = []

    def replace(tag: re.Match[str]) -> str:
        tags.append(tag[0])
        return f"jinja{len(tags) - 1}tag"

    html = _as_comments(_JINJA.sub(replace, source))
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
    found = [int(comment or word) for comment, word in _REPLACED.findall(inlined)]
    if sorted(found) != list(range(len(tags))):  # sorted: attributes may change places
        raise ValueError("a Jinja tag stands where the CSS can't be inlined around it")
    return _REPLACED.sub(lambda match: tags[int(match[1] or match[2])], inlined)


def _as_comments(html: str) -> str:
    """Makes comments of the words outside all markup."""
    pieces: list[str] = []
    end = 0
    for markup in _MARKUP.finditer(html):
        pieces += (_WORD.sub(r"<!--\g<0>-->", html[end : markup.start()]), markup[0])
        end = markup.end()
    return "".join((*pieces, _WORD.sub(r"<!--\g<0>-->", html[end:])))


SHIPPED = Path(__file__).parent / "templates"
WORDS = "words"
SHIPPED_PREFIX = "tocsin"  # of names that are always shipped templates
STYLESHEET = "notifications/email.css"

_IMPORT = re.compile(rf'@import "{SHIPPED_PREFIX}/{STYLESHEET}";')

Loaded = tuple[str, str | None, Callable[[], bool] | None]


class Templates:
    """The templates of one service; `folder` is the host's own. With `reload`, changed files are read again."""

    def __init__(
        self, folder: Path | None = None, *, reload: bool = False, inline: bool = True
    ) -> None:
        self.folder = folder
        self._inline = inline
        self._reload = reload
        self.loaded_version = ""  # with `reload`, that of the files as they were read
        self._brand: Brand | None = None
        self._environment: Sandbox | None = None
        self._selected: dict[tuple[str, ...], Template] = {}

    def render(self, names: Sequence[str], context: Mapping[str, Any]) -> str:
        """Renders the first of these templates that exists; raises TemplateFailed."""
        self.reload_if_changed()
        try:
            return render_template(self._select(tuple(names)), context)
        except Exception as error:
            raise self.failure(error, names[-1]) from error

    def variables(self, names: Sequence[str], context: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what the first of these templates that exists sets; raises TemplateFailed."""
        self.reload_if_changed()
        try:
            return exported_variables(self._select(tuple(names)), context)
        except Exception as error:
            raise self.failure(error, names[-1]) from error

    @property
    def environment(self) -> Sandbox:
        """Jinja's environment, created at first use."""
        if self._environment is None:
            brand = self.brand
            loader = _Loader(self.folder, brand.css, inline=self._inline)
            self._environment = Sandbox(loader=loader, auto_reload=False)
            self._environment.globals["brand"] = brand
        return self._environment

    @property
    def brand(self) -> Brand:
        """The host's `brand.toml`; raises TemplateFailed."""
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
        self.reload_if_changed()
        return Words(self.folder / WORDS, self.loaded_version)

    def version(self) -> str:
        """Returns a hash that differs as soon as any file changed."""
        files = hashlib.sha256()
        for root in filter(None, (self.folder, SHIPPED)):
            for file in sorted(root.rglob("*")):
                with suppress(OSError):
                    found = file.stat()
                    files.update(f"{file}\0{found.st_mtime_ns}\0{found.st_size}\0".encode())
        return files.hexdigest()[:16]

    def file(self, name: str) -> Path | None:
        """Returns where a template is."""
        if name.startswith(f"{SHIPPED_PREFIX}/"):
            places = [SHIPPED / name.removeprefix(f"{SHIPPED_PREFIX}/")]
        else:
            places = [root / name for root in (self.folder, SHIPPED) if root]
        return next((place for place in places if place.is_file()), None)

    def failure(self, error: Exception, name: str) -> TemplateFailed:
        """Returns an error as one line; `name` is the template that was rendered."""
        if isinstance(error, TemplateFailed):
            return error
        if isinstance(error, TemplateSyntaxError):
            return TemplateFailed(self._name(error.filename) or name, error.lineno, _why(error))
        place = self._place(error.__traceback__) or (name, None)
        return TemplateFailed(*place, _why(error))

    def reload_if_changed(self) -> None:
        """Drops all that was read if a file changed and `reload` is set."""
        if self._reload and (version := self.version()) != self.loaded_version:
            self.loaded_version = version
            self._brand = self._environment = None
            self._selected.clear()

    def _select(self, names: tuple[str, ...]) -> Template:
        if names not in self._selected:
            self._selected[names] = self.environment.select_template(list(names))
        return self._selected[names]

    def _place(self, traceback: TracebackType | None) -> tuple[str, int | None] | None:
        """Returns the innermost line of a template, which Jinja puts into tracebacks."""
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
                return f"{SHIPPED_PREFIX}/{file.relative_to(SHIPPED).as_posix()}"
        return None


def names_of(event_type: str, kind: str) -> tuple[str, ...]:
    """Returns the templates of an event type, the most specific first; `kind` is html, txt or words.txt."""
    category, _, name = event_type.partition(".")
    return (
        f"notifications/{category}/{name}.{kind}",
        f"notifications/{category}/email.{kind}",
        f"notifications/email.{kind}",
    )


class _Loader(BaseLoader):
    """Loads files of both folders, and inlines the style sheet into HTML."""

    def __init__(self, folder: Path | None, more_css: str, *, inline: bool) -> None:
        shipped = FileSystemLoader(SHIPPED)
        host = [FileSystemLoader(folder)] if folder else []
        self._files = ChoiceLoader([PrefixLoader({SHIPPED_PREFIX: shipped}), *host, shipped])
        self._css = _stylesheet(folder) + more_css
        self._inline = inline

    def get_source(self, environment: Environment, template: str) -> Loaded:
        """Returns the source, its path, and whether it is unchanged: Jinja's interface."""
        source, path, unchanged = self._files.get_source(environment, template)
        if self._inline and template.endswith(".html"):
            try:
                source = inline_css(source, self._css)
            except ValueError as error:
                raise TemplateSyntaxError(str(error), 1, template, path) from error
        return source, path, unchanged

    def list_templates(self) -> list[str]:
        """Returns the names of all templates."""
        return self._files.list_templates()


def _stylesheet(folder: Path | None) -> str:
    """Returns the host's style sheet, which may import the shipped one; or the shipped one."""
    shipped = (SHIPPED / STYLESHEET).read_text("utf-8")
    if folder is None or not (folder / STYLESHEET).is_file():
        return shipped
    try:
        return _IMPORT.sub(lambda _: shipped, (folder / STYLESHEET).read_text("utf-8"), count=1)
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateFailed(STYLESHEET, None, _why(error)) from None


def _why(error: Exception) -> str:
    """Returns the error in one line, without the content of the mail."""
    if isinstance(error, RecursionError):
        cure = f"write {SHIPPED_PREFIX}/ before the name to reach the one that it overrides"
        return f"it includes or extends itself: {cure}"
    if isinstance(error, UnicodeDecodeError):
        return "it is not in UTF-8"
    if isinstance(error, TemplateNotFound):
        return f"there is no template {error.name!r}"
    if isinstance(error, TemplateError):
        return " ".join(str(error.args[0] if error.args else error).split()).rstrip(".")
    return f"{type(error).__name__} in an expression"


DEFAULT = Templates()
"""The shipped templates alone."""
