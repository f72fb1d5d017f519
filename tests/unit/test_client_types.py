"""A wrong argument of a Python helper is an error for mypy (it checks the ignored ones too) and at run time."""

from __future__ import annotations

from typing import Any, cast, get_type_hints

import psycopg
import pytest

from tocsin import cancel, notify, notify_email, notify_topic
from tocsin.client import EventOptions
from tocsin.client.calls import _DEFAULTS
from tocsin.event_types import FORUM_NEW_REPLY

CONNECTION = cast("psycopg.Connection[Any]", None)  # each call fails before it is used


def test_an_unknown_argument_is_an_error() -> None:
    with pytest.raises(TypeError, match="bdoy"):
        notify(CONNECTION, recipient="a", event_type=FORUM_NEW_REPLY, title="A", bdoy="")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="sent_at"):
        notify_topic(CONNECTION, topic="t", event_type=FORUM_NEW_REPLY, title="A", sent_at=None)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="mail"):
        notify_email(CONNECTION, mail="a@b.example", event_type=FORUM_NEW_REPLY, title="A")  # type: ignore[call-overload]


def test_a_missing_argument_is_an_error() -> None:
    with pytest.raises(TypeError, match="title"):
        notify(CONNECTION, recipient="a", event_type=FORUM_NEW_REPLY)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="event_id"):
        cancel(CONNECTION)  # type: ignore[call-overload]


def test_an_argument_of_a_wrong_type_is_an_error_for_mypy() -> None:
    def never_called() -> None:
        notify(CONNECTION, recipient="a", event_type=FORUM_NEW_REPLY, title="A", body=1)  # type: ignore[call-overload]

    assert callable(never_called)


def test_each_option_has_a_default() -> None:
    assert _DEFAULTS.keys() == get_type_hints(EventOptions).keys()
