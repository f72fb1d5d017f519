"""TOCSIN_FCM_SERVICE_ACCOUNT: Google's JSON file, or what is in it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

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
