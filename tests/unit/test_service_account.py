"""TOCSIN_FCM_SERVICE_ACCOUNT: a path or the content itself, and one line about what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tocsin.settings.keys import parse_service_account
from tocsin.testing.fcm import FcmServer

ACCOUNT = FcmServer().service_account | {"token_uri": "https://oauth2.googleapis.com/token"}


def test_an_account_is_a_path_or_the_content_itself(tmp_path: Path) -> None:
    (tmp_path / "account.json").write_text(json.dumps(ACCOUNT, indent=2))

    assert parse_service_account(str(tmp_path / "account.json")) == ACCOUNT
    assert parse_service_account(json.dumps(ACCOUNT)) == ACCOUNT


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("/nowhere/account.json", "is neither"),
        ("account", "is neither"),
        ("{", "holds no JSON"),
        (__file__, "holds no JSON"),
        ("{}", "has no project_id"),
        *(
            (json.dumps(ACCOUNT | {key: None}), f"has no {key}")
            for key in ("client_email", "token_uri")
        ),
        (
            json.dumps(ACCOUNT | {"private_key": "-----BEGIN secret"}),
            "has a private_key that can't",
        ),
    ],
)
def test_a_wrong_account_is_reported_in_one_line_that_quotes_nothing(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as caught:
        parse_service_account(text)

    assert "\n" not in str(caught.value)
    assert "BEGIN" not in str(caught.value)
