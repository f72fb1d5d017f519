"""Mails with sample data, one of each kind, for `tocsin templates check` and `preview`; and previews of digests."""

from __future__ import annotations

import json
import re
import tomllib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from tocsin.engine.actors import email_mime as mime
from tocsin.engine.mail.links import KEY_BYTES, Links
from tocsin.engine.mail.loader import DEFAULT, TemplateFailed, Templates
from tocsin.engine.mail.render import mail_renderer
from tocsin.engine.model import Channel, Claimed, Entry, EventType, Mail
from tocsin.engine.store.catalogue_file import CatalogueFile, default_catalogue

if TYPE_CHECKING:
    from tocsin.engine.store.database import Database

FILE = "samples.toml"
PUBLIC_URL = "https://preview.invalid"
TO = "alice@example.com"
OTHERS = ("invitation", "burst", "digest")
"""Kinds of mail beside those of one event type."""

_CREATED_AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
_FILE = json.loads(Path(__file__).with_name("variants.json").read_text("utf-8"))
_DELIVERY: dict[str, Any] = _FILE["delivery"]
"""What every sample has that no template shows."""
VARIANTS: dict[str, dict[str, Any]] = _FILE["variants"]
"""How mails of one event type differ: each may reveal a mistake in a template."""


class Sample(Struct, frozen=True, forbid_unknown_fields=True):
    """One notification: a table of samples.toml."""

    title: str = "What happened, in one line"
    body: str = "The first paragraph.\nIts second line.\n\nThe second paragraph."
    body_html: str | None = None
    action_url: str | None = "/somewhere"
    initiator: str | None = "bob"
    name: str | None = "Alice"
    metadata: dict[str, Any] = {}


class SampleMails:
    """Renders the sample of any kind: an event type's name, or one of OTHERS. Raises TemplateFailed."""

    def __init__(self, templates: Templates, types: Sequence[EventType], email_from: str) -> None:
        self.types = {each.event_type: each for each in types}
        self._samples = _samples(templates.folder)
        links = Links(PUBLIC_URL, bytes(KEY_BYTES))
        self._render = mail_renderer(links, email_from, templates, precompile=False)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Returns all kinds of mail."""
        return (*self.types, *OTHERS)

    def mail(self, kind: str, variant: str = "in full", locale: str | None = "en") -> Mail:
        """Renders one mail."""
        changes = {"locale": locale} | VARIANTS[variant]
        if kind == "burst":
            names = [each for each in self.types.values() if not _is_mandatory(each)][:3]
            return self._mail([self._claimed(7 + n, each, changes) for n, each in enumerate(names)])
        if kind == "digest":
            return self._digest(changes)
        if kind == "invitation":
            changes, kind = changes | VARIANTS["as an invitation"], next(iter(self.types))
        each = self.types[kind]
        if changes.get("recipient_id", "alice") is None:
            changes |= {"mandatory": False}
        return self._mail([self._claimed(7, each, changes)])

    def _mail(self, together: Sequence[Claimed], entries: Sequence[Entry] = ()) -> Mail:
        mail = self._render(together, entries).content
        assert isinstance(mail, Mail)
        return mail

    def _digest(self, changes: Mapping[str, Any]) -> Mail:
        kept = {name: changes[name] for name in ("locale", "name", "timezone") if name in changes}
        one = next(iter(self.types.values()))
        nothing = {"title": "", "body": "", "action_url": None, "event_type": "", "label": ""}
        digest = self._claimed(9, one, {**nothing, **kept, "digest_id": 1, "notification_id": None})
        return self._mail([digest], self._entries())

    def _entries(self) -> list[Entry]:
        """Returns entries of each category, some of them read; of the first category more than are shown."""
        entries: list[Entry] = []
        for each in sorted(self.types.values(), key=lambda one: one.category):
            sample = self._samples.get(each.event_type) or _shipped(each.category)
            for _ in range(1 if entries else 17):
                number = len(entries) + 1
                entries.append(
                    Entry(
                        digest_id=1,
                        recipient_id="alice",
                        notification_id=number,
                        event_type=each.event_type,
                        created_at=_CREATED_AT + timedelta(hours=number),
                        read=number % 4 == 0,
                        title=sample.title,
                        body=sample.body,
                        body_html=sample.body_html,
                        action_url=sample.action_url if number % 3 else None,
                        label=each.label,
                        category=each.category,
                        category_label=each.category_label,
                    )
                )
        return entries

    def _claimed(self, number: int, each: EventType, changes: Mapping[str, Any]) -> Claimed:
        sample = self._samples.get(each.event_type) or _shipped(each.category)
        content = _DELIVERY | {
            "delivery_id": number,
            "notification_id": number,
            "event_id": number,
            "recipient_id": "alice",
            "mandatory": _is_mandatory(each),
            "event_type": each.event_type,
            "label": each.label,
            "category": each.category,
            "locale": "en",
            "timezone": "Europe/Berlin",
            "created_at": _CREATED_AT,
            "reason": "default",
        }
        content |= msgspec.structs.asdict(sample) | dict(changes)
        if each.event_type in self._samples:  # its templates may rely on the metadata of its sample
            content["metadata"] = sample.metadata
        return msgspec.convert(content, Claimed)


async def preview(
    database: Database, recipient_id: str, email_from: str, templates: Templates = DEFAULT
) -> str:
    """Returns the text of a person's digest if it were created now, with example links; raises NotFound."""
    # imported here, since checks of templates need no database
    from tocsin.engine.store import delivery, digest, recipient

    person = await recipient.get_recipient(database, recipient_id)
    preferences = await digest.get_digest_preferences(database, recipient_id)
    entries = await digest.waiting_entries(database, recipient_id)
    timezone = await digest.digest_timezone(database, recipient_id)
    zones = await delivery.zone_rules(database, [timezone] if timezone else [])
    when = f"due {preferences.next_at:%Y-%m-%d %H:%M} UTC" if preferences.next_at else "none is due"
    if not entries:
        return (
            f"Nothing waits for {recipient_id}'s digest ({preferences.frequency}, {when}): no mail."
        )
    if all(entry.read for entry in entries):
        return f"All that waits for {recipient_id}'s digest was read ({when}): no mail."
    own = {"recipient_id": recipient_id, "name": person.name, "locale": person.locale}
    due = {"timezone": timezone, "created_at": datetime.now(UTC), "digest_id": 0}
    claimed = msgspec.convert(
        _DELIVERY | own | due | {"zone": zones[0] if zones else None}, Claimed
    )
    links = Links(PUBLIC_URL, bytes(KEY_BYTES))
    mail = mail_renderer(links, email_from, templates)([claimed], entries).content
    assert isinstance(mail, Mail)
    return f"To: {person.email or 'no address'} ({when})\nSubject: {mail.subject}\n\n{mail.text}"


def sample_types(catalogue: CatalogueFile | None = None) -> list[EventType]:
    """Returns those of the default catalogue, with a host's own over it."""
    default = default_catalogue()
    host = catalogue or default
    entries = host.event_types if host.replace else default.event_types | host.event_types
    labels = default.categories | host.categories
    return [
        EventType(
            category := name.partition(".")[0],
            labels.get(category, category),
            name,
            entry.label,
            entry.channels,
            entry.mandatory,
            entry.priority,
            entry.digest,
        )
        for name, entry in entries.items()
    ]


def _is_mandatory(event_type: EventType) -> bool:
    return Channel.EMAIL in event_type.mandatory_channels


def _samples(folder: Path | None) -> dict[str, Sample]:
    """Reads samples.toml, by event type; raises TemplateFailed."""
    if folder is None or not (folder / FILE).is_file():
        return {}
    try:
        found = tomllib.loads((folder / FILE).read_text("utf-8"))
        return {name: _sample(name, each) for name, each in found.items()}
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        why = re.sub(r" \(at .*\)", "", str(error))
        raise TemplateFailed(FILE, int(line[1]) if line else None, why) from None
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateFailed(FILE, None, f"can't be read: {error}") from None


def _sample(name: str, found: Any) -> Sample:
    for key in found if isinstance(found, dict) else ():
        if key not in Sample.__struct_fields__:
            near = get_close_matches(key, Sample.__struct_fields__, 1)
            cure = f"did you mean {near[0]!r}?" if near else ", ".join(Sample.__struct_fields__)
            raise TemplateFailed(FILE, None, f"[{name!r}] unknown setting {key!r} ({cure})")
    try:
        return msgspec.convert(found, Sample)
    except msgspec.ValidationError as error:
        raise TemplateFailed(FILE, None, f"[{name!r}] {error}") from None


@cache
def _by_category() -> dict[str, Sample]:
    text = (Path(__file__).parent / FILE).read_text("utf-8")
    return msgspec.toml.decode(text, type=dict[str, Sample])


def _shipped(category: str) -> Sample:
    return _by_category().get(category) or Sample()


# A mail as a page in light or dark mode, and as its source.

Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")

_COLOUR_SCHEME_QUERY = re.compile(r"\(\s*prefers-color-scheme\s*:\s*(light|dark)\s*\)")
_DECLARED = re.compile(r"((?:supported-)?color-schemes?(?:\s*:|\"\s+content=\")\s*)light dark")


def page(mail: Mail, scheme: Scheme) -> str:
    """Returns its HTML as a page with the pictures inside, in a fixed colour scheme."""
    html = mail.html
    for image in mail.images:
        data = b64encode(image.content).decode("ascii")
        html = html.replace(f"cid:{image.content_id}", f"data:image/{image.kind};base64,{data}")
    html = _DECLARED.sub(rf"\g<1>{scheme}", html)
    # media queries that are always true or false
    return _COLOUR_SCHEME_QUERY.sub(
        lambda query: f"(min-width: {0 if query[1] == scheme else 99999}px)", html
    )


def source(mail: Mail, email_from: str, now: datetime) -> str:
    """Returns the whole mail as it is sent, without a signature."""
    _, sender = mime.to_sender(email_from)
    whole = mime.complete(mime.draft(mail, sender=sender), to=mime.to_address(TO), now=now)
    return whole.decode("utf-8", "replace").replace("\r\n", "\n")


def headers(source: str) -> list[tuple[str, str]]:
    """Returns the headers of a source, in their order."""
    head = re.sub(r"\n[ \t]+", " ", source.partition("\n\n")[0])
    return [(name, value) for name, _, value in (line.partition(": ") for line in head.split("\n"))]
