"""The setting TOCSIN: its keys, their defaults, and what may be wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from django.conf import settings

ALGORITHMS = ("HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "EdDSA")
USER_FIELDS = ("id", "email", "name", "locale", "timezone", "avatar_url")
SECRET_BYTES = 32  # the service refuses a shorter secret

_UNSET: Any = object()

# A user's attribute by its name or dotted path, called if it is a method; or a function of the user; None: left out.
Mapped = str | Callable[[Any], object] | None


@dataclass(frozen=True)
class Options:
    """The keys of TOCSIN, in lower case."""

    database: str = "default"
    """The alias of the database in which Tocsin's schemas are."""
    service_url: str | None = None
    """Tocsin's public URL, such as https://notify.example.com; the template tag loads the bell from there."""
    signing_key: Any = _UNSET
    """What signs people's JWTs: the service's TOCSIN_JWT_SECRET, or a private key as PEM. None: no tokens are made."""
    signing_algorithm: str = "HS256"
    """One of ALGORITHMS; all but HS… need `pip install "pyjwt[crypto]"`."""
    token_lifetime: timedelta = timedelta(hours=1)
    """For how long a token is valid; the bell fetches the next one."""
    audience: str | None = None
    """The tokens' `aud`: the service's TOCSIN_JWT_AUDIENCE."""
    issuer: str | None = None
    """The tokens' `iss`: the service's TOCSIN_JWT_ISSUER."""
    event_types: str | Path | None = None
    """A TOML file with event types of the app, applied by each `manage.py migrate`."""
    sync_users: bool = True
    """Whether saved and deleted users become recipients, and are erased, in the same transaction."""
    user: Mapping[str, Mapped] = field(default_factory=dict)
    """Which attribute of a user is the recipient's id, email, name, locale, timezone and avatar_url."""
    erase_deleted_users: bool = True
    """Whether deleting a user erases all that Tocsin holds about the person."""

    @property
    def user_map(self) -> dict[str, Mapped]:
        """The attribute for each of USER_FIELDS, with the defaults of the user model."""
        from django.contrib.auth import get_user_model

        model: Any = get_user_model()
        email = model.get_email_field_name() if hasattr(model, "get_email_field_name") else None
        name = "get_full_name" if hasattr(model, "get_full_name") else None
        defaults: dict[str, Mapped] = dict.fromkeys(USER_FIELDS) | {"id": "pk", "name": name}
        if email and hasattr(model, email):
            defaults["email"] = email
        return defaults | dict(self.user)


def options() -> Options:
    """Returns the setting TOCSIN; keys that are not known are left out (checks.py reports them)."""
    found = _found()
    known = {each.name for each in fields(Options)}
    return Options(**{k.lower(): v for k, v in found.items() if k.isupper() and k.lower() in known})


def faults() -> Iterator[tuple[str, str]]:
    """Yields what is wrong with TOCSIN, and the cure, beginning with what the rest depends on."""
    if not isinstance(getattr(settings, "TOCSIN", {}), Mapping):
        yield "TOCSIN is not a dictionary.", 'Write TOCSIN = {"SIGNING_KEY": …} in the settings.'
        return
    keys = [each.name.upper() for each in fields(Options)]
    for key in _found():
        if key not in keys:
            near = get_close_matches(str(key).upper(), keys, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"The keys are {', '.join(keys)}."
            yield f"TOCSIN has no key {key!r}.", hint
    chosen = options()
    wrong = list(_wrong_types(chosen))
    yield from wrong or (*_wrong_values(chosen), *_key_faults(chosen))


def _found() -> Mapping[str, Any]:
    found = getattr(settings, "TOCSIN", {})
    return found if isinstance(found, Mapping) else {}


def _wrong_types(chosen: Options) -> Iterator[tuple[str, str]]:
    text = (str, type(None))
    kinds: dict[str, tuple[Any, str]] = {
        "database": (str, 'a database alias, such as "default"'),
        "service_url": (text, 'an address, such as "https://notify.example.com"'),
        "signing_algorithm": (str, "one of " + ", ".join(ALGORITHMS)),
        "token_lifetime": (timedelta, "a timedelta, such as timedelta(hours=1)"),
        "audience": (text, "a text"),
        "issuer": (text, "a text"),
        "event_types": ((str, Path, type(None)), "the path of a TOML file"),
        "sync_users": (bool, "True or False"),
        "erase_deleted_users": (bool, "True or False"),
        "user": (Mapping, 'a dictionary, such as {"id": "pk", "email": "email"}'),
    }
    for name, (kind, cure) in kinds.items():
        value = getattr(chosen, name)
        if not isinstance(value, kind):
            yield f'TOCSIN["{name.upper()}"] is {value!r:.60}.', f"It must be {cure}."


def _wrong_values(chosen: Options) -> Iterator[tuple[str, str]]:
    if chosen.signing_algorithm not in ALGORITHMS:
        named = f'TOCSIN["SIGNING_ALGORITHM"] is {chosen.signing_algorithm!r:.60}.'
        yield named, f"It must be one of {', '.join(ALGORITHMS)}."
    url = chosen.service_url
    if url is not None and not url.startswith(("https://", "http://", "/")):
        yield f'TOCSIN["SERVICE_URL"] is {url!r:.60}.', "It must begin with https://, http:// or /."
    if chosen.token_lifetime <= timedelta(0):
        yield 'TOCSIN["TOKEN_LIFETIME"] is not positive.', "Write timedelta(hours=1), for instance."
    for key in chosen.user:
        if key not in USER_FIELDS:
            fault = f'TOCSIN["USER"] has no key {key!r}.'
            yield fault, f"The keys are {', '.join(USER_FIELDS)}."


def _key_faults(chosen: Options) -> Iterator[tuple[str, str]]:
    key = chosen.signing_key
    if key is _UNSET:
        yield (
            'TOCSIN has no "SIGNING_KEY", which signs the tokens of the bell.',
            "Set it to the service's TOCSIN_JWT_SECRET (openssl rand -base64 48), or to None if none are made.",
        )
    elif key is None:
        return
    elif not isinstance(key, str):
        yield f'TOCSIN["SIGNING_KEY"] is of type {type(key).__name__}.', "It must be a text."
    elif chosen.signing_algorithm.startswith("HS"):
        if len(key.encode()) < SECRET_BYTES:
            cure = f"The service needs {SECRET_BYTES} bytes at least: openssl rand -base64 48."
            yield 'TOCSIN["SIGNING_KEY"] is too short.', cure
    elif "PRIVATE KEY" not in key:
        yield (
            f'TOCSIN["SIGNING_KEY"] is no private key, which {chosen.signing_algorithm} needs.',
            "Set it to the PEM text, such as Path(…).read_text(); the service has the public key.",
        )
