"""The form of every kind of mail, as it arrives: links, images, size, parts. `make check-mails` asks others' tools."""

from __future__ import annotations

import email
import email.policy
import re
from email.message import EmailMessage
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest

from tests.support.sample_mails import PUBLIC_URL, received, sample_messages
from tocsin.engine.model import Mail

MOST_BYTES = 100_000  # Gmail clips at 102 kB
MESSAGES = sample_messages()
LOADING = {"src", "srcset", "background", "poster", "data", "action", "formaction", "cite", "ping"}
NO_PLACE_IN_A_MAIL = {
    "script",
    "iframe",
    "object",
    "embed",
    "form",
    "input",
    "link",
    "base",
    "video",
}


class Page(HTMLParser):
    """What a mail's HTML links to, shows and loads."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.loaded: list[str] = []
        self.empty_links = 0
        self._text_of_link: list[str] | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        if tag == "a":
            self.links.append(given.get("href") or "")
            self._text_of_link = []
        if tag == "img":
            self.images.append(given)
            self._write(given.get("alt") or "")
        self.loaded += [value or "" for name, value in attrs if name in LOADING]

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._text_of_link is not None:
            self.empty_links += not "".join(self._text_of_link).strip()
            self._text_of_link = None

    def handle_data(self, data: str) -> None:
        self._write(data)

    def _write(self, text: str) -> None:
        if self._text_of_link is not None:
            self._text_of_link.append(text)


@pytest.fixture(scope="module")
def mails(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return received(tmp_path_factory.mktemp("mails"), MESSAGES)


def parsed(mail: bytes) -> EmailMessage:
    message = email.message_from_bytes(mail, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def part(mail: bytes, subtype: str) -> str:
    body = parsed(mail).get_body((subtype,))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


def is_good(link: str) -> bool:
    """Absolute, and by https or this service's own address; body_html may hold a mailto."""
    return link.startswith((f"{PUBLIC_URL}/", "mailto:")) or (
        urlsplit(link).scheme == "https" and bool(urlsplit(link).hostname)
    )


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_link_is_absolute_and_has_words(mails: dict[str, bytes], kind: str) -> None:
    page = Page(part(mails[kind], "html"))
    assert [link for link in page.links if not is_good(link)] == []
    assert page.empty_links == 0
    in_text = re.findall(r"\bhttps?:[^\s)]+", part(mails[kind], "plain"))
    assert [link for link in in_text if not is_good(link)] == []


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_image_has_an_alt_text_and_nothing_is_loaded(
    mails: dict[str, bytes], kind: str
) -> None:
    html = part(mails[kind], "html")
    page = Page(html)
    assert [image for image in page.images if image.get("alt") is None] == []
    assert [address for address in page.loaded if not address.startswith("cid:")] == []
    assert not re.search(r"(?i)url\s*\(|@import|@font-face", html)
    assert page.tags & NO_PLACE_IN_A_MAIL == set()


@pytest.mark.parametrize("kind", MESSAGES)
def test_no_mail_is_clipped(mails: dict[str, bytes], kind: str) -> None:
    assert len(mails[kind]) <= MOST_BYTES


@pytest.mark.parametrize("kind", MESSAGES)
def test_it_arrives_as_it_was_rendered(mails: dict[str, bytes], kind: str) -> None:
    mail = MESSAGES[kind].content
    assert isinstance(mail, Mail)
    message = parsed(mails[kind])
    assert message.get_content_type() == "multipart/alternative"
    assert [each.get_content_type() for each in message.iter_parts()] == ["text/plain", "text/html"]
    assert message.defects == []
    assert message["Subject"] == mail.subject
    assert part(mails[kind], "plain") == mail.text
    assert part(mails[kind], "html").rstrip("\n") == mail.html.rstrip("\n")


@pytest.mark.parametrize("kind", MESSAGES)
def test_the_way_out_is_offered_wherever_it_is_theirs(mails: dict[str, bytes], kind: str) -> None:
    mail = MESSAGES[kind].content
    assert isinstance(mail, Mail)
    message = parsed(mails[kind])
    if kind in {"mandatory", "hebrew", "compliance.overdue"}:
        assert message["List-Unsubscribe"] is None
        return
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    way_out = message["List-Unsubscribe"].strip("<>")
    assert way_out.startswith("https://")
    assert way_out in Page(part(mails[kind], "html")).links
