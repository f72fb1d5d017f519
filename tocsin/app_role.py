"""A login role for trying things out as an app: granted tocsin_app, with a password in the data directory."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from tocsin.secret_file import keep_secrets

_ROLE = "tocsin_app_login"
_SECRET = "app_password"


def app_dsn(owner_dsn: str, data_dir: Path) -> str:
    """The DSN of the login role, which is made at its first use. Needs an owner who may create roles."""
    data_dir.mkdir(parents=True, exist_ok=True)
    password = keep_secrets(data_dir, _SECRET)[_SECRET]
    with psycopg.connect(owner_dsn, autocommit=True, connect_timeout=3) as connection:
        known = connection.execute("select from pg_roles where rolname = %s", (_ROLE,)).fetchone()
        verb = "alter" if known is not None else "create"
        connection.execute(
            sql.SQL("{} role {} login password {}").format(
                sql.SQL(verb), sql.Identifier(_ROLE), sql.Literal(password)
            )
        )
        connection.execute(sql.SQL("grant tocsin_app to {}").format(sql.Identifier(_ROLE)))
        host, port, database = (
            connection.info.host,
            connection.info.port,
            quote(connection.info.dbname),
        )
    if host.startswith("/"):  # a Unix socket
        where = f"/{database}?host={quote(host, safe='')}&port={port}"
    else:
        where = f"{f'[{host}]' if ':' in host else host}:{port}/{database}"
    return f"postgresql://{_ROLE}:{quote(password)}@{where}"
