"""The errors of the client, each for an SQLSTATE of class TC, and how a driver's error becomes one of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import psycopg


class NotifyError(psycopg.DatabaseError):
    """Tocsin refused a call; its transaction can then only be rolled back, to a savepoint or as a whole.

    A subclass of psycopg's error, with the SQLSTATE of its class. What a call with a Django connection raises is also a
    django.db.DatabaseError, with SQLAlchemy a sqlalchemy.exc.DatabaseError, with asyncpg an asyncpg.PostgresError.
    """

    def __init__(self, message: str, hint: str = "", argument: str | None = None) -> None:
        super().__init__(f"{message}. {hint}" if hint else message)
        self.message = message
        self.hint = hint  # what to do about it
        self.argument = argument  # which one is at fault

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # for another process, which need not have the framework
        kind = ERRORS.get(self.sqlstate or "", NotifyError)
        return kind, (self.message, self.hint, self.argument)


class UnknownEventType(NotifyError):
    """The catalogue has no such event type; the hint names the nearest ones."""

    sqlstate = "TC001"


class UnknownRecipient(NotifyError):
    """There is no recipient of that id: call `upsert_recipient` first."""

    sqlstate = "TC002"


class IdempotencyConflict(NotifyError):
    """The key was used for other content."""

    sqlstate = "TC003"


class InvalidArgument(NotifyError):
    """An argument is wrong; the hint names the cure."""

    sqlstate = "TC004"


ERRORS = {
    kind.sqlstate: kind
    for kind in (UnknownEventType, UnknownRecipient, IdempotencyConflict, InvalidArgument)
}

_CURES = {
    "3F000": "Create Tocsin's schema in this database with `tocsin migrate`.",
    "42883": "Bring Tocsin's schema in this database up to date with `tocsin migrate`.",
    "42501": "Grant the role that the app connects as the right to call Tocsin: grant tocsin_app to <role>.",
}
"""What to do about errors of the database that name Tocsin and are not of class TC."""

_ABORTED = "25P02"
_ROLL_BACK = (
    "An earlier statement of this transaction failed: roll it back first. A savepoint around a statement that may fail"
    " keeps the rest."
)


def raise_refusal(error: Exception, also: type[Exception] | None) -> NoReturn:
    """Raises a driver's error of class TC as its NotifyError, which is `also` an error of the host's framework.

    Raises other errors as they are, with a note that names the cure where one is known.
    """
    for cause in _causes(error):
        state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
        kind, parts = ERRORS.get(state or ""), _parts(cause)
        if kind and parts:
            refusal = combined(kind, also)(*parts)
            if hasattr(error, "orig"):  # as SQLAlchemy's errors have it
                vars(refusal)["orig"] = error.orig
            raise refusal from error
        cure = _CURES.get(state or "") if "tocsin" in str(cause) else None
        if state == _ABORTED:
            cure = _ROLL_BACK
        if cure:
            error.add_note(cure)
            break
    raise error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error, and those of the driver that its framework wrapped."""
    while error is not None:
        yield error
        error = getattr(error, "orig", None) or error.__cause__


def _parts(error: Any) -> tuple[str, str, str | None] | None:
    """Returns message, hint and argument of an error of psycopg or asyncpg; None for a wrapper without them."""
    if diag := getattr(error, "diag", None):
        return diag.message_primary or "", diag.message_hint or "", diag.column_name
    if hasattr(error, "column_name"):
        return error.message or "", error.hint or "", error.column_name
    return None


def combined(kind: type[NotifyError], also: type[Exception] | None) -> type[NotifyError]:
    """Returns the class of errors that are of both kinds."""
    if also is None:
        return kind
    names = {"__module__": kind.__module__, "__doc__": kind.__doc__}
    combination: type[NotifyError] = type(kind.__name__, (kind, also), names)
    return combination
