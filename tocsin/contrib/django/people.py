"""Users as recipients: which attribute is what, how both are kept in step, and the tokens of the people."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.db.models import QuerySet
from django.db.models.signals import post_delete, post_save

from tocsin import InvalidArgument, erase_recipient, upsert_recipient
from tocsin.contrib.bell import person_token
from tocsin.contrib.django.conf import USER_FIELDS, Mapped, Options, options
from tocsin.sql import load

_SQL = load("django")
_MOST = 200  # characters of an id and a name
PersonFields = dict[str, str | None]

log = logging.getLogger("tocsin.django")


def recipient_id(user: Any) -> str:
    """Returns the id by which Tocsin knows a user."""
    return str(_value(user, options().user_map["id"]))


def person_of(user: Any, chosen: Options | None = None) -> PersonFields:
    """Returns what Tocsin is to know about a user; empty values are None."""
    mapped = (chosen or options()).user_map
    found = {name: _text(_value(user, mapped[name])) for name in USER_FIELDS}
    if found["name"]:
        found["name"] = " ".join(found["name"].split())[:_MOST]
    return found


def connect_signals() -> None:
    """Keeps recipients in step with the user model from now on, if the project has one."""
    try:
        model = get_user_model()
    except ImproperlyConfigured:
        return
    post_save.connect(_saved, sender=model, dispatch_uid="tocsin.user_saved")
    post_delete.connect(_deleted, sender=model, dispatch_uid="tocsin.user_deleted")


def sync_users(
    users: QuerySet[Any], *, batch: int = 1000, progress: Callable[[int], None] | None = None
) -> Iterator[str]:
    """Creates or changes the recipients of these users; each batch is a transaction. Yields what was left out, and why.

    `progress` is called with the number of users so far.
    """
    chosen = options()
    # in one order, so that two runs at once don't wait for each other crosswise
    remaining = iter(users.order_by("pk").iterator(chunk_size=batch))
    done = 0
    while people := [person_of(user, chosen) for user in islice(remaining, batch)]:
        try:
            with transaction.atomic(using=chosen.database):
                _upsert_all(people, chosen.database)
        except Exception as error:
            if not _is_refusal(error):
                raise
            yield from _upsert_each(people, chosen.database)
        done += len(people)
        if progress:
            progress(done)


def _saved(instance: Any, update_fields: Iterable[str] | None = None, **_: Any) -> None:
    chosen = options()
    if not chosen.sync_users or not _concerns_us(update_fields):
        return
    for fault in _upsert_each([person_of(instance, chosen)], chosen.database):
        log.warning("%s", fault)


def _deleted(instance: Any, **_: Any) -> None:
    chosen = options()
    if chosen.sync_users and chosen.erase_deleted_users:
        erase_recipient(connections[chosen.database], recipient_id(instance))


def _concerns_us(update_fields: Iterable[str] | None) -> bool:
    """Returns false where only fields are saved that Tocsin does not keep, such as last_login at each sign-in."""
    return update_fields is None or bool(set(update_fields) - {"last_login", "password"})


def _upsert_all(people: list[PersonFields], alias: str) -> None:
    """Stores all in one statement, a hundred times as fast as one by one."""
    with connections[alias].cursor() as cursor:
        cursor.execute(_SQL["upsert_recipients"], {n: [p[n] for p in people] for n in USER_FIELDS})


def _upsert_each(people: Iterable[PersonFields], alias: str) -> Iterator[str]:
    """Stores each by itself, without what Tocsin refuses of a person: their user has to be saved all the same."""
    for person in people:
        left_out: dict[str, str] = {}
        while True:
            known = {name: value for name, value in person.items() if name not in left_out}
            try:
                with transaction.atomic(using=alias):
                    upsert_recipient(connections[alias], **known)  # type: ignore[arg-type]
            except InvalidArgument as error:
                if error.argument not in known:
                    raise
                left_out[error.argument] = str(error)
                if error.argument == "id":
                    break
            else:
                break
        for name, fault in left_out.items():
            yield f"user {person['id']}: {name} was left out: {fault}"


def _is_refusal(error: Exception) -> bool:
    """Returns whether Tocsin refused a value, as Django raises it from a statement of our own."""
    return getattr(error.__cause__, "sqlstate", None) == InvalidArgument.sqlstate


def _value(user: Any, mapped: Mapped) -> object:
    if mapped is None:
        return None
    if not isinstance(mapped, str):
        return mapped(user)
    found = user
    for name in mapped.split("."):
        found = getattr(found, name, None)
        if callable(found):
            found = found()
    return found


def _text(value: object) -> str | None:
    return None if value is None or value == "" else str(value)


def token_for(user: Any) -> str:
    """Returns a JWT for a user, for TOCSIN["TOKEN_LIFETIME"]. Raises ImproperlyConfigured without a signing key."""
    chosen = options()
    if not isinstance(chosen.signing_key, str) or not chosen.signing_key:
        raise ImproperlyConfigured(
            'TOCSIN["SIGNING_KEY"] is not set: set it to the TOCSIN_JWT_SECRET of the Tocsin service.'
        )
    try:
        return person_token(
            recipient_id(user),
            chosen.signing_key,
            algorithm=chosen.signing_algorithm,
            lifetime=chosen.token_lifetime,
            audience=chosen.audience,
            issuer=chosen.issuer,
        )
    except ImportError:
        raise ImproperlyConfigured(
            f'TOCSIN["SIGNING_ALGORITHM"] {chosen.signing_algorithm} needs PyJWT: pip install "pyjwt[crypto]".'
        ) from None
