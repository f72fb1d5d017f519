"""`tocsin templates`: the templates of mails, built-in ones and those of the host's own folder."""

from __future__ import annotations

from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tocsin.settings import Settings, SettingsError, read_settings

if TYPE_CHECKING:
    from tocsin.engine.mail.samples import SampleMails
    from tocsin.engine.model import EventType

SHIPPED = Path(__file__).parent.parent / "engine/mail/templates"
_OURS = frozenset({".html", ".txt", ".css"})  # files that one of the same name replaces
_EVENT_TYPES = click.option(
    "--event-types",
    "catalogue",
    type=click.Path(path_type=Path),
    help="Your catalogue file, if there is one: see `tocsin event-types apply`.",
)


@click.group()
def templates() -> None:
    """List, copy, check or preview the templates of mails; your own are in TOCSIN_TEMPLATES_DIR."""


@templates.command(name="list")
def list_templates() -> None:
    """List all templates: built in (ours), or from your folder (yours)."""
    folder = read_settings().templates_dir
    ours, theirs = _names(SHIPPED), _names(folder) if folder else set()
    for name in sorted(ours | theirs):
        whose = "yours, over ours" if name in ours & theirs else "yours"
        click.echo(f"{name:<44} {whose if name in theirs else 'ours'}")


@templates.command()
@click.argument("name")
@click.option(
    "--as", "new_name", help="The name of the copy, such as notifications/forum/new_reply.html."
)
def copy(name: str, new_name: str | None) -> None:
    """Copy the built-in template NAME into your folder."""
    folder = _folder(read_settings())
    known = _names(SHIPPED)
    if name not in known:
        near = get_close_matches(name, known, 1)
        cure = f"did you mean {near[0]!r}?" if near else "`tocsin templates list` has all."
        raise SettingsError(f"There is no template {name!r}: {cure}")
    target = (folder / (new_name or name)).resolve()
    if not target.is_relative_to(folder):
        raise SettingsError(f"{new_name} is not in {folder}.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.write((SHIPPED / name).read_bytes())
    except FileExistsError:
        raise SettingsError(f"{target} is there already: it is not changed.") from None
    except OSError as error:
        raise SettingsError(f"{target} can't be written: {error.strerror}") from None
    click.echo(target)


@templates.command()
@_EVENT_TYPES
def check(catalogue: Path | None) -> None:
    """Compile and render every template with sample data; prints each problem in one line."""
    from tocsin.engine.mail.loader import TemplatesError
    from tocsin.engine.mail.template_check import check as check_templates

    folder = read_settings().templates_dir
    types = _types(catalogue)
    if problems := check_templates(folder, types):
        raise TemplatesError(problems)
    what = f"{folder} over ours" if folder else "ours alone: TOCSIN_TEMPLATES_DIR is not set"
    click.echo(f"No problem in mails of {len(types)} event types ({what}).")


@templates.command()
@click.argument("kind", required=False)
@click.option("--out", type=click.Path(path_type=Path), help="Write files into this folder.")
@click.option("--locale", default="en", help="The language of the reader, such as de or ar-EG.")
@_EVENT_TYPES
def preview(kind: str | None, out: Path | None, locale: str, catalogue: Path | None) -> None:
    """Show the sample mail of KIND (an event type, invitation, burst or digest), or of all."""
    from tocsin.engine.mail.loader import Templates
    from tocsin.engine.mail.samples import SampleMails

    settings = read_settings()
    mails = SampleMails(Templates(settings.templates_dir), _types(catalogue), settings.email_from)
    if kind is not None and kind not in mails.kinds:
        near = get_close_matches(kind, mails.kinds, 1)
        cure = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(mails.kinds)}."
        raise SettingsError(f"There is no mail {kind!r}: {cure}")
    kinds = (kind,) if kind else mails.kinds
    if out is None:
        for each in kinds:
            mail = mails.mail(each, locale=locale)
            click.echo(f"Subject: {mail.subject}\n\n{mail.text}")
        return
    try:
        for each in kinds:
            click.echo(_write(out, each, mails, locale, settings.email_from))
    except OSError as error:
        raise SettingsError(f"{error.filename} can't be written: {error.strerror}") from None


def _write(out: Path, kind: str, mails: SampleMails, locale: str, email_from: str) -> Path:
    """Writes its HTML, light and dark, its text and its source; returns the path of the first."""
    from tocsin.engine.mail.samples import SCHEMES, page, source

    out.mkdir(parents=True, exist_ok=True)
    mail = mails.mail(kind, locale=locale)
    for scheme in SCHEMES:
        name = f"{kind}.html" if scheme == "light" else f"{kind}.{scheme}.html"
        (out / name).write_text(page(mail, scheme), "utf-8")
    (out / f"{kind}.txt").write_text(mail.text, "utf-8")
    (out / f"{kind}.eml").write_text(source(mail, email_from, datetime.now(UTC)), "utf-8")
    return out / f"{kind}.html"


def _types(catalogue: Path | None) -> list[EventType]:
    from tocsin.engine.mail.samples import sample_types
    from tocsin.engine.store.catalogue_file import read_catalogue

    return sample_types(read_catalogue(catalogue) if catalogue else None)


def _names(folder: Path) -> set[str]:
    return {
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.is_file() and (folder != SHIPPED or file.suffix in _OURS)
    }


def _folder(settings: Settings) -> Path:
    if settings.templates_dir is None:
        raise SettingsError("TOCSIN_TEMPLATES_DIR is not set: name a folder for your templates.")
    return settings.templates_dir
