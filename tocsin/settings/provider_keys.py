"""TOCSIN_APNS_…: the four that belong together, checked as one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from email.utils import parseaddr
from pathlib import Path
from typing import Any

from msgspec import Struct

# TOCSIN_FCM_SERVICE_ACCOUNT: Google's JSON file, or what is in it.

_NEEDED = ("project_id", "client_email", "private_key", "token_uri")


def parse_service_account(text: str) -> dict[str, Any]:
    """The account as it was given, checked; raises ValueError, which never quotes any of it."""
    account = _parsed(text if text.lstrip().startswith("{") else _content(text))
    if missing := [key for key in _NEEDED if not isinstance(account.get(key), str)]:
        raise ValueError(f"has no {missing[0]}: it must be a service account's JSON")
    from google.oauth2.service_account import Credentials  # takes a tenth of a second

    try:
        Credentials.from_service_account_info(account)
    except ValueError:
        raise ValueError("has a private_key that can't be read: download the JSON anew") from None
    return account


def _content(text: str) -> str:
    path = os.path.expanduser(text)
    if not os.path.isfile(path):
        raise ValueError("is neither a service account's JSON nor a file that is there")
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError):
        raise ValueError("names a file that can't be read as text") from None


def _parsed(text: str) -> dict[str, Any]:
    try:
        account = json.loads(text)
    except ValueError:
        raise ValueError("holds no JSON") from None
    if not isinstance(account, dict):
        raise ValueError("holds no JSON object")
    return account


# TOCSIN_DKIM_…: the key that mails are signed with, checked with the sender that it must belong to.

_DKIM_NAMES = ("DKIM_KEY", "DKIM_SELECTOR", "DKIM_DOMAIN")


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
    given = {name: value(name) for name in _DKIM_NAMES}
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
    from tocsin.engine.actors.email.dkim import Signer

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
    from tocsin.engine.actors.email.dkim import to_name

    try:
        return to_name(text)
    except ValueError as error:
        raise ValueError(f"TOCSIN_{setting} {error}") from None


_APNS_NAMES = ("APNS_KEY", "APNS_KEY_ID", "APNS_TEAM_ID", "APNS_TOPIC")


class ApnsKey(Struct, frozen=True):
    """What Apple knows an app's server by."""

    pem: str
    key_id: str
    team_id: str
    topic: str

    def __repr__(self) -> str:
        """Without the key."""
        return f"ApnsKey(key_id={self.key_id!r}, team_id={self.team_id!r}, topic={self.topic!r})"


def read_apns_key(value: Callable[[str], str | None]) -> ApnsKey | None:
    """All four or none; raises ValueError with the name of the one at fault."""
    given = {name: value(name) for name in _APNS_NAMES}
    if not any(given.values()):
        return None
    for name, text in given.items():
        if not text:
            raise ValueError(f"TOCSIN_{name} is not set: APNs needs {', '.join(_APNS_NAMES)}")
    return ApnsKey(
        _apns_key_content(given["APNS_KEY"] or ""),
        given["APNS_KEY_ID"] or "",
        given["APNS_TEAM_ID"] or "",
        given["APNS_TOPIC"] or "",
    )


def _apns_key_content(text: str) -> str:
    from tocsin.engine.actors.apns.provider_token import ProviderKey

    pem = text
    if "-----BEGIN" not in text:
        path = Path(os.path.expanduser(text))
        if not path.is_file():
            raise ValueError("TOCSIN_APNS_KEY is neither a .p8 key nor a file that is there")
        pem = path.read_text(errors="replace")
    try:
        ProviderKey(pem=pem, key_id="check", team_id="check")
    except ValueError as error:
        raise ValueError(f"TOCSIN_APNS_KEY is {error}") from None
    return pem.strip()
