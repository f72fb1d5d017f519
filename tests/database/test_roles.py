"""The roles of the database: who owns, what a service and an app may do, and what an administrator has to run."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from click.testing import CliRunner
from psycopg.conninfo import make_conninfo
from structlog.testing import capture_logs

from tests.support.cluster import *  # noqa: F403 - fixtures
from tests.support.cluster import Admin
from tests.support.forked import run_tocsin
from tests.support.services import SERVICE_LOGIN, service_dsn
from tocsin.cli import main
from tocsin.dev.postgres_cluster import wheel
from tocsin.engine.store.database import Database
from tocsin.engine.store.dispatch import LeaderSession
from tocsin.engine.store.health import NotReady, check_start
from tocsin.migrate import migrate
from tocsin.sql.install import MigrationError

Db = psycopg.Connection[Any]


PUBLIC = {
    "actions_since",
    "cancel",
    "claim_email",
    "erase_recipient",
    "inbox",
    "mark_read",
    "notify",
    "notify_email",
    "notify_topic",
    "register_push_token",
    "register_web_push",
    "subscribe",
    "unread_count",
    "unsubscribe",
    "upsert_recipient",
    "why",
    "withdraw",
}


OURS = "array['tocsin'::regnamespace, 'tocsin_queue'::regnamespace]"


OWNERS = f"""
    select nspowner::regrole::text from pg_namespace where oid = any ({OURS})
    union select c.relowner::regrole::text from pg_class c where c.relnamespace = any ({OURS})
    union select p.proowner::regrole::text from pg_proc p where p.pronamespace = any ({OURS})
    union select t.typowner::regrole::text from pg_type t where t.typnamespace = any ({OURS})
"""


def tocsin(*arguments: str, dsn: str | None, data_dir: Path) -> subprocess.CompletedProcess[str]:
    environ = {"TOCSIN_DATA_DIR": str(data_dir)} | ({"TOCSIN_DATABASE_URL": dsn} if dsn else {})
    return run_tocsin(*arguments, environ=environ)


# -- what belongs to whom


def test_functions_that_run_as_their_owner_run_as_no_superuser_and_trust_no_search_path(
    db: Db,
) -> None:
    found = db.execute(
        "select p.proname, p.prorettype = 'trigger'::regtype, o.rolsuper, p.proconfig,"
        "  exists (select from aclexplode(p.proacl) a where a.grantee = 0) or p.proacl is null as public"
        " from pg_proc p join pg_roles o on o.oid = p.proowner"
        f" where p.prosecdef and p.pronamespace = any ({OURS})"
    ).fetchall()
    assert {name for name, trigger, *_ in found if not trigger} == PUBLIC
    pinned = "search_path=pg_catalog, pg_temp"
    assert {(superuser, pinned in config, public) for _, _, superuser, config, public in found} == {
        (False, True, False)
    }


def test_an_app_may_call_the_public_functions_and_touch_nothing_else(db: Db) -> None:
    callable_ = db.execute(
        f"select p.proname from pg_proc p where p.pronamespace = any ({OURS})"
        " and has_function_privilege('tocsin_app', p.oid, 'execute')"
    ).fetchall()
    assert sorted(name for (name,) in callable_) == sorted(PUBLIC)  # each with one signature
    touched = db.execute(
        "select c.relname from pg_class c"
        f" where c.relnamespace = any ({OURS})"
        " and c.relkind in ('r', 'p', 'v', 'S')"
        " and case when c.relkind = 'S' then has_sequence_privilege('tocsin_app', c.oid, 'usage, select, update')"
        "   else has_any_column_privilege('tocsin_app', c.oid, 'select, insert, update, references')"
        "     or has_table_privilege('tocsin_app', c.oid, 'delete, truncate, trigger') end"
    ).fetchall()
    assert touched == []


def test_a_service_lacks_no_right_on_any_table_sequence_or_function(db: Db) -> None:
    lacking = db.execute(
        "select c.oid::regclass::text from pg_class c"
        f" where c.relnamespace = any ({OURS})"
        " and c.relkind in ('r', 'p', 'v', 'S')"
        " and not case when c.relkind = 'S' then has_sequence_privilege('tocsin_service', c.oid, 'usage')"
        "   else has_table_privilege('tocsin_service', c.oid, 'select')"
        "     and has_table_privilege('tocsin_service', c.oid, 'insert')"
        "     and has_table_privilege('tocsin_service', c.oid, 'update')"
        "     and has_table_privilege('tocsin_service', c.oid, 'delete') end"
        " union all"
        " select p.oid::regprocedure::text from pg_proc p"
        f" where p.pronamespace = any ({OURS})"
        " and not has_function_privilege('tocsin_service', p.oid, 'execute')"
    ).fetchall()
    # it reads which migrations were applied, and writes none
    assert lacking == [("tocsin.migration",)]


async def test_services_of_these_tests_have_no_other_rights(database: Database, db: Db) -> None:
    """Or a missing grant would show in production first."""
    assert await database.value("select current_user") == SERVICE_LOGIN
    roles = db.execute(
        "select roleid::regrole::text from pg_auth_members where member = %s::regrole",
        [SERVICE_LOGIN],
    ).fetchall()
    assert roles == [("tocsin_service",)]
    nologin = (
        "select rolcanlogin or rolsuper or rolcreaterole from pg_roles"
        " where rolname in ('tocsin_app', 'tocsin_service')"
    )
    assert db.execute(nologin).fetchall() == [(False,), (False,)]


@pytest.mark.parametrize(
    "statement",
    [
        "create table tocsin.mine ()",
        "create table tocsin_queue.mine ()",
        "create table public.mine ()",
        "create schema mine",
        "create function tocsin.mine() returns int language sql as 'select 1'",
        "create or replace function tocsin.unread_count(recipient text) returns int language sql as 'select 1'",
        "create trigger mine before insert on tocsin.event execute function suppress_redundant_updates_trigger()",
        "alter table tocsin.event add column mine int",
        "alter function tocsin.unread_count(text) security invoker",
        "drop table tocsin.event",
        "truncate tocsin.event",
        "insert into tocsin.migration (name, checksum) values ('9999', '')",
        "update tocsin.migration set checksum = ''",
        "delete from tocsin.migration",
        "grant tocsin_service to pg_monitor",
        "set role tocsin_owner",
        "set session authorization tocsin_owner",
        "create role mine",
        "alter role tocsin_app login",
        "select * from shop.customer",
        "select pg_read_file('postgresql.conf')",
        "copy tocsin.event to program 'true'",
        "select * from pg_authid",
        "alter system set log_statement = 'all'",
    ],
)
def test_a_service_changes_no_object_and_reads_nothing_of_the_app(
    db: Db, dsn: str, statement: str
) -> None:
    db.execute("create schema shop create table shop.customer (name text)")
    with psycopg.connect(service_dsn(dsn), autocommit=True) as service:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            service.execute(statement)


def test_the_commands_need_no_other_role_than_a_service(
    db: Db, dsn: str, data_dir: Path, tmp_path: Path
) -> None:
    catalogue = tmp_path / "types.toml"
    catalogue.write_text(
        '[event_types]\n"forum.poll" = { label = "Poll", channels = ["in_app"] }\n'
    )
    environ = {"TOCSIN_DATABASE_URL": service_dsn(dsn), "TOCSIN_DATA_DIR": str(data_dir)}
    for command in (
        "seed",
        f"event-types apply {catalogue}",
        "event-types list",
        "notify forum.poll alice --title Hello",
        "why 1",
        "api-key create shop",
        "api-key list",
        "api-key revoke 1",
        "deliveries failed",
        "deliveries replay --all",
        "digest run",
        "digest preview alice",
        "cleanup",
    ):
        done = CliRunner().invoke(main, command.split(), env=environ)
        assert done.exit_code == 0, (command, done.output)


async def test_a_service_vacuums_the_small_tables_where_postgresql_lets_it(
    db: Db, dsn: str
) -> None:
    bell = await LeaderSession.connect(service_dsn(dsn))
    warnings: list[str | None] = []
    bell.connection.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
    try:
        may = await bell.may_vacuum()
        await bell.vacuum()
    finally:
        await bell.close()
    assert may == (db.info.server_version >= 170000)
    assert (warnings == []) == may


# -- who migrates


def test_what_a_superuser_migrates_belongs_to_a_role_that_is_none(
    admin: Admin, admin_dsn: str
) -> None:
    migrate(admin_dsn)
    assert admin(OWNERS) == [("tocsin_owner",)]
    attributes = (
        "select rolcanlogin, rolsuper, rolcreaterole from pg_roles where rolname = 'tocsin_owner'"
    )
    assert admin(attributes) == [(False, False, False)]


def test_a_superuser_migrates_as_the_role_that_owns_the_schemas_already(
    admin: Admin, admin_dsn: str
) -> None:
    admin("create role \"Shop's\" login createrole password 'x'")
    admin('alter database app owner to "Shop\'s"')
    migrate(make_conninfo(admin_dsn, user="Shop's", password="x"))
    admin("drop function tocsin.unread_count(text)")
    migrate(admin_dsn)  # creates it again
    assert admin(OWNERS) == [('"Shop\'s"',)]


def test_what_belonged_to_a_superuser_is_the_owners_after_the_next_migration(
    admin: Admin, admin_dsn: str
) -> None:
    """A database of an earlier version: nothing is granted to services, and functions run as a superuser."""
    migrate(admin_dsn)
    admin("reassign owned by tocsin_owner to current_user")
    admin("drop owned by tocsin_service")
    admin("drop role tocsin_service")
    admin("drop role tocsin_owner")
    admin("create role plain login password 'x'")
    with pytest.raises(MigrationError, match="run tocsin migrate once as a superuser"):
        migrate(make_conninfo(admin_dsn, user="plain", password="x"))
    migrate(admin_dsn)
    assert admin(OWNERS) == [("tocsin_owner",)]
    admin("grant tocsin_service to plain")
    with psycopg.connect(make_conninfo(admin_dsn, user="plain", password="x")) as service:
        assert service.execute("select exists (select from tocsin.event_type)").fetchone() == (
            True,
        )


def test_an_owner_that_is_a_superuser_is_refused(admin: Admin, admin_dsn: str) -> None:
    admin("create role tocsin_owner superuser")
    try:
        with pytest.raises(MigrationError, match="alter role tocsin_owner nosuperuser;"):
            migrate(admin_dsn)
    finally:
        admin("drop role tocsin_owner")


def test_an_owner_without_createrole_learns_what_an_administrator_has_to_run(
    admin: Admin, admin_dsn: str, data_dir: Path
) -> None:
    admin("create role plain login password 'x'")
    plain = make_conninfo(admin_dsn, user="plain", password="x")
    refused = tocsin("migrate", dsn=plain, data_dir=data_dir)
    assert (refused.returncode, refused.stdout) == (1, "")
    heading, *lines = refused.stderr.splitlines()
    assert heading == "tocsin: The database can't be migrated yet:"
    missing = "the schemas tocsin and tocsin_queue do not exist, and plain may not create schemas"
    may_not = "does not exist, and plain may not create roles"
    assert lines == [
        f"  create role tocsin_app nologin;  -- the role tocsin_app {may_not}",
        f"  create role tocsin_service nologin;  -- the role tocsin_service {may_not}",
        f"  grant create on database app to plain;  -- {missing}",
    ]
    for line in lines:
        admin(line)  # as printed: the reason is a comment
    done = tocsin("migrate", dsn=plain, data_dir=data_dir)
    assert (done.returncode, done.stderr) == (0, "")
    assert admin(OWNERS) == [("plain",)]
    admin("create role other login password 'x'")
    other = tocsin(
        "migrate", dsn=make_conninfo(admin_dsn, user="other", password="x"), data_dir=data_dir
    )
    assert other.returncode == 1
    assert "grant plain to other;" in other.stderr
    admin("grant plain to other")
    migrate(make_conninfo(admin_dsn, user="other", password="x"))
    assert admin(OWNERS) == [("plain",)]


async def test_a_service_warns_of_a_superuser_and_refuses_a_role_without_rights(
    admin: Admin, admin_dsn: str
) -> None:
    migrate(admin_dsn)
    admin("create role plain login password 'x'")
    plain = make_conninfo(admin_dsn, user="plain", password="x")
    with pytest.raises(NotReady, match="grant it tocsin_service"):
        await check_start(plain, wait=0)
    admin("grant tocsin_service to plain")
    with capture_logs() as logs:
        await check_start(plain, wait=0)
    assert logs == []
    with capture_logs() as logs:
        await check_start(admin_dsn, wait=0)
    [warning] = logs
    assert warning["log_level"] == "warning"
    assert "superuser" in warning["event"]
    assert "tocsin_service" in warning["cure"]


def test_the_roles_that_docker_compose_creates_are_enough(
    admin: Admin, admin_dsn: str, data_dir: Path
) -> None:
    compose = yaml.safe_load(
        (Path(__file__).parent.parent.parent / "docker-compose.yml").read_text()
    )
    script = compose["configs"]["roles"]["content"].replace("$$", "$")
    psql = [str(wheel() / "bin" / "psql"), *compose["services"]["roles"]["command"][1:-1]]
    logins = ("tocsin_owner", "tocsin_service_login", "tocsin_app_login")
    for round_ in ("first", "second"):  # passwords may change
        passwords = {login: f"{round_}{login}" for login in logins}
        environ = {
            "OWNER_PASSWORD": passwords["tocsin_owner"],
            "SERVICE_PASSWORD": passwords["tocsin_service_login"],
            "APP_PASSWORD": passwords["tocsin_app_login"],
        }
        subprocess.run([*psql, admin_dsn], env=environ, input=script, text=True, check=True)
        owner, service, app = (
            make_conninfo(admin_dsn, user=login, password=passwords[login]) for login in logins
        )
        migrate(owner)
        asyncio.run(check_start(service, wait=0))
        with psycopg.connect(app) as connection:
            connection.execute("select tocsin.upsert_recipient('alice')")
    rights = "select rolname from pg_roles where rolname ~ '^tocsin' and (rolsuper or rolcreaterole or rolcreatedb)"
    assert admin(rights) == []


# -- logins


def test_a_dsn_of_each_role_can_do_what_the_role_can(db: Db, dsn: str, data_dir: Path) -> None:
    logins: dict[str, str] = {}
    for role in ("app", "service"):
        for _ in range(2):  # the second time the login is there
            done = tocsin("dsn", "--role", role, dsn=dsn, data_dir=data_dir)
            assert done.returncode == 0, done.stderr
            logins[role] = done.stdout.splitlines()[-1]
    with psycopg.connect(logins["service"]) as service:
        service.execute("select from tocsin.event")
    with psycopg.connect(logins["app"]) as app:
        assert app.execute("select tocsin.unread_count('alice')").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute("select from tocsin.event")


def test_dsn_names_what_is_missing(admin: Admin, admin_dsn: str, data_dir: Path) -> None:
    def fault(dsn: str | None, folder: Path = data_dir) -> str:
        done = tocsin("dsn", "--role", "app", dsn=dsn, data_dir=folder)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr

    nothing = fault(None)
    assert "TOCSIN_DATABASE_URL is not set" in nothing
    assert str(data_dir) in nothing
    assert "can't be reached" in fault("postgresql://nobody@127.0.0.1:1/nowhere")
    assert "run tocsin migrate first  -- the role tocsin_app does not exist" in fault(admin_dsn)
    migrate(admin_dsn)
    admin("create role plain login password 'x'")
    plain = make_conninfo(admin_dsn, user="plain", password="x")
    assert "grant tocsin_app to tocsin_app_login;  -- plain may not create roles" in fault(plain)
    admin("alter role plain createrole")  # it may create roles, but not grant tocsin_app
    assert "grant tocsin_app to tocsin_app_login;" in fault(plain)
    (data_dir / "file").touch()
    assert "file/below/secrets.json can't be read" in fault(admin_dsn, data_dir / "file" / "below")
