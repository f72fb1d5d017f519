"""TOCSIN_DKIM_…: the key that mails are signed with, checked with the sender that it must belong to."""

from __future__ import annotations

import os
from collections.abc import Callable
from email.utils import parseaddr
from pathlib import Path

from msgspec import Struct

_NAMES = ("DKIM_KEY", "DKIM_SELECTOR", "DKIM_DOMAIN")


class DkimKey(Struct, frozen=True):
    """A private key, and where its public half is: `selector._domainkey.domain`."""

    pem: str
    selector: str
    domain: str

    def __repr__(self) -> str:
        """Without the key."""
        return f"DkimKey(selector={self.selector!r}, domain={self.domain!r})"


def read_dkim_key(value: Callable[[str], str | None], *, email_from: str) -> DkimKey | None:
    """The key and its selector, or none; raises ValueError with the name of the setting at fault."""
    given = {name: value(name) for name in _NAMES}
    if not any(given.values()):
        return None
    for name in ("DKIM_KEY", "DKIM_SELECTOR"):
        if not given[name]:
            raise ValueError(
                f"TOCSIN_{name} is not set: DKIM needs TOCSIN_DKIM_KEY and TOCSIN_DKIM_SELECTOR"
            )
    return DkimKey(
        pem=_pem(given["DKIM_KEY"] or ""),
        selector=_name("DKIM_SELECTOR", given["DKIM_SELECTOR"] or ""),
        domain=_domain(given["DKIM_DOMAIN"], email_from),
    )


def _pem(text: str) -> str:
    from tocsin.engine.actors.dkim import Signer

    # Some ways to set a variable can't hold a line break and write \n for it.
    pem = text.replace("\\n", "\n") if "-----BEGIN" in text else _file(text)
    try:
        Signer(pem=pem, selector="check", domain="check")
    except ValueError as error:
        raise ValueError(f"TOCSIN_DKIM_KEY {error}") from None
    return pem.strip()


def _file(text: str) -> str:
    path = os.path.expanduser(text)
    if not os.path.isfile(path):  # unlike Path.is_file, False also for what is too long for a path
        raise ValueError("TOCSIN_DKIM_KEY is neither a private key in PEM nor a file that is there")
    try:
        return Path(path).read_text(errors="replace")
    except OSError as error:
        raise ValueError(
            f"TOCSIN_DKIM_KEY names a file that can't be read: {error.strerror}"
        ) from None


def _domain(text: str | None, email_from: str) -> str:
    """The domain of the signature, aligned with the sender's as DMARC asks (RFC 7489 section 3.1.1)."""
    sender = _name("EMAIL_FROM", parseaddr(email_from)[1].rpartition("@")[2])
    domain = _name("DKIM_DOMAIN", text) if text else sender
    if "." not in domain:
        raise ValueError(
            f"TOCSIN_DKIM_DOMAIN can't be {domain}: DKIM needs a domain of DNS, such as that of TOCSIN_EMAIL_FROM"
        )
    if not f".{sender}".endswith(f".{domain}") and not domain.endswith(f".{sender}"):
        raise ValueError(
            f"TOCSIN_DKIM_DOMAIN is {domain}, but mails are from {sender} (TOCSIN_EMAIL_FROM):"
            " name that domain, or one above or below it"
        )
    return domain


def _name(setting: str, text: str) -> str:
    from tocsin.engine.actors.dkim import to_name

    try:
        return to_name(text)
    except ValueError as error:
        raise ValueError(f"TOCSIN_{setting} {error}") from None
