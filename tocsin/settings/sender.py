"""The sender of the mails: one ASCII address that servers accept, and perhaps a name before it."""

from __future__ import annotations

import re
from email.utils import parseaddr

MOST_NAME_CHARACTERS = 200

_SENDER = re.compile(
    r'(?:"(?:[^"\\]|\\.)*"|[^"<>@,;:\\\[\]]*?)\s*<(?P<named>[^<>\s]+)>|(?P<bare>[^<>\u2039\u203a\s,;]+)'
)
# As `tocsin.address_fault` in sql/functions/address.sql, of what is ASCII: RFC 5321, RFC 1123.
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}")
_EXAMPLE = '"Example <notifications@example.com>"'


def parse_sender(text: str) -> str:
    """The same text; raises ValueError with what is wrong with it."""
    found = _SENDER.fullmatch(text)
    address = found and (found["named"] or found["bare"])
    if not address or "@" not in address or not text.isprintable() or parseaddr(text)[1] != address:
        raise ValueError(f"must be one address in one line, such as {_EXAMPLE}")
    if len(parseaddr(text)[0]) > MOST_NAME_CHARACTERS:
        raise ValueError(f"has a name of more than {MOST_NAME_CHARACTERS} characters")
    if fault := address_fault(address):
        raise ValueError(
            f"must have an address that mail servers accept, such as {_EXAMPLE}: {fault}"
        )
    return text


def address_fault(address: str) -> str | None:
    """What is wrong with an address of ours, or None. Its domain may be written in any script."""
    local, at, domain = address.rpartition("@")
    if not (at and local and domain):
        return "it needs an @ between a name and a domain"
    if not local.isascii():
        return "many lack SMTPUTF8, which the letters before the @ need"
    if len(local) > 64 or not _LOCAL.fullmatch(local):
        return "before the @ are at most 64 letters, digits and single dots"
    domain = _to_ascii(domain)
    if not _DOMAIN.fullmatch(domain) or len(local) + 1 + len(domain) > 254:
        return "its domain has an empty, overlong or misspelt part"
    return None


def _to_ascii(domain: str) -> str:
    """As DNS has it (IDNA 2008); empty where it can't be."""
    if domain.isascii():
        return domain
    import idna

    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return ""
