"""A sample mail as somebody wants to look at it: in full, in the dark, or as it goes over the wire."""

from __future__ import annotations

import re
from base64 import b64encode
from datetime import datetime
from typing import Literal

from tocsin.engine.actors import mime
from tocsin.engine.model import Mail
from tocsin.engine.sample_mails import TO

Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")

_ASKED = re.compile(r"\(\s*prefers-color-scheme\s*:\s*(light|dark)\s*\)")
_DECLARED = re.compile(r"((?:supported-)?color-schemes?(?:\s*:|\"\s+content=\")\s*)light dark")


def page(mail: Mail, scheme: Scheme) -> str:
    """Its HTML as a page by itself, its pictures inside, in a colour scheme whatever the browser's is."""
    html = mail.html
    for image in mail.images:
        data = b64encode(image.content).decode("ascii")
        html = html.replace(f"cid:{image.content_id}", f"data:image/{image.kind};base64,{data}")
    html = _DECLARED.sub(rf"\g<1>{scheme}", html)
    # true and false, as media queries say them
    return _ASKED.sub(lambda asked: f"(min-width: {0 if asked[1] == scheme else 99999}px)", html)


def source(mail: Mail, email_from: str, now: datetime) -> str:
    """All of it, as it goes over the wire before it is signed."""
    _, sender = mime.to_sender(email_from)
    whole = mime.address(mime.draft(mail, sender=sender), to=mime.to_mailbox(TO), now=now)
    return whole.decode("utf-8", "replace").replace("\r\n", "\n")


def headers(source: str) -> list[tuple[str, str]]:
    """The headers of a source, in their order."""
    head = re.sub(r"\n[ \t]+", " ", source.partition("\n\n")[0])
    return [(name, value) for name, _, value in (line.partition(": ") for line in head.split("\n"))]
