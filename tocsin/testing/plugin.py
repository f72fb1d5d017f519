"""The pytest plugin: the fixture `tocsin_outbox`, on the connection that the app's code uses in a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tocsin.testing.outbox import AsyncOutbox, Outbox


@pytest.fixture
def tocsin_connection(request: pytest.FixtureRequest) -> Any:
    """The connection that the app's code notifies on, inside the test's transaction. Override it in conftest.py.

    With pytest-django it is Django's default connection, and the test may use the database.
    """
    if not request.config.pluginmanager.hasplugin("django"):
        pytest.fail(
            "tocsin_outbox needs the connection that the app's code uses in a test: override the fixture "
            "tocsin_connection in conftest.py, and let it return that connection (docs/guides/testing.md).",
            pytrace=False,
        )
    request.getfixturevalue("db")
    from django.db import connection

    return connection


@pytest.fixture
def tocsin_outbox(tocsin_connection: Any) -> Outbox | AsyncOutbox:
    """What the app's code notifies in this test; on a connection whose calls are awaited, an AsyncOutbox.

    An Outbox begins without what was committed before the test's transaction; an AsyncOutbox with all that its
    connection sees, until `await outbox.clear()`.
    """
    from tocsin.testing.outbox import AsyncOutbox, Outbox, is_async

    if is_async(tocsin_connection):
        return AsyncOutbox(tocsin_connection)
    outbox = Outbox(tocsin_connection)
    outbox.forget_earlier_transactions()
    return outbox
