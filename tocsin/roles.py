"""The database roles: the owner that migrates, `tocsin_service` for services, `tocsin_app` for apps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, LiteralString, cast
from urllib.parse import quote

import psycopg

from tocsin.connection import connect
from tocsin.secret_file import SecretFileError, keep_secrets
from tocsin.sql import load

_QUERIES = load("role")

_Connection = psycopg.Connection[Any]


class RoleError(Exception):
    """A role is missing or lacks a right: one line for each, with its cure."""


def act_as_owner(connection: _Connection) -> None:
    """Makes what is missing of the roles, and acts as the schemas' owner until the transaction ends.

    The owner is never a superuser: what a superuser migrates belongs to `tocsin_owner`
    (docs/adr/0040-roles.md). Raises RoleError with all that the session's role lacks.
    """
    if faults := connection.execute(_QUERIES["missing_rights"]).fetchall():
        raise RoleError(_lines("The database can't be migrated yet", faults))
    _run_each(connection, "create_roles")
    owner, acting = connection.execute(_QUERIES["owner"]).fetchone() or ("", "")
    if connection.execute(_QUERIES["is_superuser"]).fetchone() == (True,):
        _run_each(connection, "give_to_owner", owner=owner)
    if owner != acting:
        connection.execute(_QUERIES["act_as"], {"owner": owner})


def login_dsn(owner_dsn: str, data_dir: Path, role: Literal["app", "service"]) -> str:
    """The DSN of a login that is granted `tocsin_app` or `tocsin_service`; the login is created at its first use.

    Its password is kept in the data directory. Raises RoleError where the owner can't create it.
    """
    login, granted, secret = f"tocsin_{role}_login", f"tocsin_{role}", f"{role}_password"
    with connect(owner_dsn, autocommit=True) as connection:
        names = {"login": login, "granted": granted}
        if faults := connection.execute(_QUERIES["login_faults"], names).fetchall():
            raise RoleError(_lines(f"The login {login} can't be created", faults))
        password = _kept_password(data_dir, secret)
        # hashed here, so that no statement in the server's log has it
        hashed = connection.pgconn.encrypt_password(password.encode(), login.encode()).decode()
        try:
            _run_each(connection, "create_login", **names, password=hashed)
        except psycopg.errors.InsufficientPrivilege as error:
            fault = (
                f"run as an administrator: grant {granted} to {login};",
                error.diag.message_primary or str(error),
            )
            raise RoleError(_lines(f"The login {login} can't be created", [fault])) from error
        host, port = connection.info.host, connection.info.port
        database = quote(connection.info.dbname)
    if host.startswith("/"):  # a Unix socket
        where = f"/{database}?host={quote(host, safe='')}&port={port}"
    else:
        where = f"{f'[{host}]' if ':' in host else host}:{port}/{database}"
    return f"postgresql://{login}:{quote(password)}@{where}"


def _kept_password(data_dir: Path, secret: str) -> str:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        return keep_secrets(data_dir, secret)[secret]
    except OSError as error:
        raise SecretFileError(
            f"TOCSIN_DATA_DIR {data_dir} can't keep the password: {error.strerror}"
        ) from None


def _run_each(connection: _Connection, name: str, **arguments: str) -> None:
    """Runs the statements that a query returns; the names in them are quoted by the server."""
    for (statement,) in connection.execute(_QUERIES[name], arguments or None).fetchall():
        connection.execute(cast("LiteralString", statement))


def _lines(what: str, faults: list[tuple[str, str]]) -> str:
    return "\n".join([f"{what}:", *(f"  {cure}  -- {reason}" for cure, reason in faults)])
