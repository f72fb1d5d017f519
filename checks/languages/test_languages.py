"""The guides for other languages, run: their calls in real transactions, and the tokens that they sign."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from host_site import *  # noqa: F403 - fixtures
from host_site import HostSite
from npm_package import install
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.guides import blocks, files, write
from tests.support.services import SECRET

HERE = Path(__file__).parent
GO = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "", "GOTOOLCHAIN": "local"}
OTHERS = "other-languages.md"


class App:
    """A host app's own role and table in the database of the service."""

    def __init__(self, site: HostSite, folder: Path) -> None:
        self.site = site
        self.folder = folder
        with psycopg.connect(site.dsn, autocommit=True) as owner:
            owner.execute("drop table if exists reply")
            owner.execute(
                "create table reply (id bigserial primary key, thread_id int, author text, body text)"
            )
            if owner.execute("select to_regrole('guide_app')").fetchone() == (None,):
                owner.execute("create role guide_app login password 'guide'")
                owner.execute("grant tocsin_app to guide_app")
            owner.execute("grant all on reply, reply_id_seq to guide_app")
            owner.execute(
                "select tocsin.upsert_recipient(id) from unnest(array['alice', 'bob']) id"
            )
        self.before = self.titles()
        parts: dict[str, Any] = conninfo_to_dict(
            make_conninfo(site.dsn, user="guide_app", password="guide", sslmode="disable")
        )
        address = f"{parts.get('host', '127.0.0.1')}:{parts['port']}/{parts['dbname']}"
        pdo = ";".join(f"{name}={value}" for name, value in parts.items())
        self.environ = {
            **os.environ,
            **GO,
            "GOCACHE": str(folder / "go-cache"),
            "DATABASE_URL": f"postgresql://guide_app:guide@{address}?sslmode=disable",
            "DATABASE_DSN": f"pgsql:{pdo}",
            "TOCSIN_JWT_SECRET": SECRET,
            "NOTIFY_URL": f"{site.direct}/",
            "NOTIFY_TOKEN": site.token("alice"),
        }

    def run(self, *command: str, **environ: str) -> list[str]:
        """Returns the lines that a program prints; it has to succeed."""
        ran = subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,  # for a hang: Go compiles its library first
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout.splitlines()

    def titles(self) -> list[str]:
        return [each["title"] for each in self.inbox()]

    def inbox(self) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = self.site.request(
            "alice", "GET", "notifications/?limit=100"
        )["results"]
        return results

    def expect_one_reply(self, event_id: str) -> None:
        """Asserts that one reply was stored, and that alice was notified of it in the same transaction, once."""
        newest, *others = self.inbox()
        assert str(newest["event_id"]) == event_id
        assert (newest["title"], newest["initiator"]) == ("Bob replied", "bob")
        assert [each["title"] for each in others] == self.before
        with psycopg.connect(self.site.dsn) as owner:
            assert owner.execute("select author from reply").fetchall() == [("bob",)]


@pytest.fixture
def app(site: HostSite, tmp_path: Path) -> App:
    return App(site, tmp_path)


@pytest.fixture
def node(app: App) -> App:
    """The app with the packages that a Node app has: `pg` and `tocsin`."""
    install(app.folder)
    for package in (HERE / "node_modules").iterdir():
        if not package.name.startswith("."):
            (app.folder / "node_modules" / package.name).symlink_to(package)
    (app.folder / "package.json").write_text('{"type": "module"}')
    write("node.md", app.folder)
    return app


def test_rails(app: App) -> None:
    write(OTHERS, app.folder)
    around = """
    require "active_record"
    ActiveRecord::Base.establish_connection(ENV.fetch("DATABASE_URL"))
    Reply = Class.new(ActiveRecord::Base) { self.table_name = "reply" }
    require "./app/models/tocsin"
    Tocsin.upsert_recipient(7, email: "seven@example.com")
    puts eval(File.read("app/services/post_reply.rb"))
    begin
      Tocsin.notify("forum.new_repyl", [7], "Bob's reply")
    rescue ActiveRecord::StatementInvalid => error
      puts error.cause.result.error_field(PG::Result::PG_DIAG_SQLSTATE)
    end
    begin
      ActiveRecord::Base.transaction do
        Tocsin.notify("forum.new_reply", ["alice"], "Never stored")
        raise "rolled back"
      end
    rescue RuntimeError
    end
    """
    event_id, code = app.run("ruby", "-e", around)
    assert code == "TC001"
    app.expect_one_reply(event_id)
    assert app.inbox()[0]["action_url"].startswith("/forums/42#")


def test_ruby_alone(app: App) -> None:
    write(OTHERS, app.folder)
    event_id, code = app.run("ruby", "reply.rb")
    assert code == "TC001"
    app.expect_one_reply(event_id)


def test_go(app: App) -> None:
    write(OTHERS, app.folder)
    event_id, code = app.run("go", "run", "reply.go")
    assert code == "TC001"
    app.expect_one_reply(event_id)


def test_php(app: App) -> None:
    write(OTHERS, app.folder)
    event_id, code = app.run("php", "reply.php")
    assert code == "TC001"
    app.expect_one_reply(event_id)


def test_sql_alone(app: App) -> None:
    (statement,) = blocks(OTHERS, "sql")
    with psycopg.connect(app.environ["DATABASE_URL"]) as connection:
        connection.execute("insert into reply (author) values ('bob')")
        row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    app.expect_one_reply(str(row[0]))


def test_node_in_its_own_transaction(node: App) -> None:
    (line,) = node.run("node", "reply.js")
    kind, event_id = line.split()
    assert kind == "string"
    node.expect_one_reply(event_id)


def test_node_names_the_cure_of_a_refused_event(node: App) -> None:
    reply = node.folder / "reply.js"
    reply.write_text(files("node.md")["reply.js"].replace("forum.new_reply", "forum.new_repyl"))
    ran = subprocess.run(
        ["node", "reply.js"], cwd=node.folder, env=node.environ, capture_output=True, text=True
    )
    assert ran.returncode == 1
    assert "TC001" in ran.stderr
    assert "forum.new_reply" in ran.stderr
    assert node.titles() == node.before
    with psycopg.connect(node.site.dsn) as owner:
        assert owner.execute("select count(*) from reply").fetchone() == (0,)


def test_node_over_http(node: App) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "tocsin", "api-key", "create", "guide"],
        env={**os.environ, "TOCSIN_DATABASE_URL": node.site.dsn},
        capture_output=True,
        text=True,
        check=True,
    )
    key = made.stdout.split()[-1]
    once, refused = node.run("node", "report.js", NOTIFY_API_KEY=key)
    assert once == "number true"
    assert "forum.new_repyl" in refused
    assert "forum.new_reply" in refused
    assert node.titles() == ["Bob replied", *node.before]


def test_node_reads_an_inbox(node: App) -> None:
    for number in range(12):
        notify(node, f"Number {number}")
    count, *lines = node.run("node", "inbox.js")
    assert count.endswith("unread")
    assert [line.split(" ", 1)[1] for line in lines[:10]] == [
        f"Number {number} /forums/7" for number in range(11, 1, -1)
    ]
    assert lines[10].endswith("more")
    assert lines[11].startswith("404 ")
    assert [each["read"] for each in node.inbox()[:3]] == [True, False, False]
    assert node.run("node", "plain.js")[0] == "Number 11 true"


@pytest.mark.parametrize(
    "command", [("node", "follow.js"), ("node", "--experimental-eventsource", "event-source.js")]
)
def test_node_follows_the_stream(node: App, command: tuple[str, ...]) -> None:
    with subprocess.Popen(
        command, cwd=node.folder, env=node.environ, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("badge ")
            notify(node, "Fresh")
            lines = [process.stdout.readline() for _ in range(2)]
            assert any(line.startswith("notification Fresh") for line in lines), lines
        finally:
            process.kill()


def notify(app: App, title: str) -> None:
    """Notifies alice, as the host app does."""
    with psycopg.connect(app.environ["DATABASE_URL"]) as connection:
        connection.execute(
            "select tocsin.notify('forum.new_reply', array['alice'], %s, action_url => '/forums/7')",
            [title],
        )


GO_MAIN = """
func main() {
	token, err := notificationToken("alice")
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString(token)
}
"""
SIGNERS = {
    "python": ("sign.py", "\nprint(notification_token('alice'))\n", (sys.executable,)),
    "js": ("sign.mjs", "\nconsole.log(notificationToken('alice'));\n", ("node",)),
    "ruby": ("sign.rb", '\nputs notification_token("alice")\n', ("ruby",)),
    "php": ("sign.php", "\necho notification_token('alice');\n", ("php",)),
    "go": ("main.go", GO_MAIN, ("go", "run")),
}


@pytest.mark.parametrize("language", SIGNERS)
def test_a_token_of_each_language_is_accepted(app: App, language: str) -> None:
    name, call, command = SIGNERS[language]
    signer = [code for code in blocks("tokens.md", language) if "TOCSIN_JWT_SECRET" in code]
    assert len(signer) == 1
    (app.folder / name).write_text(signer[0] + call)
    (token,) = app.run(*command, name)
    headers = {"Authorization": f"Bearer {token}"}
    me = httpx.get(f"{app.site.direct}/api/me/", headers=headers, timeout=60)
    assert me.status_code == 200, me.headers
    assert me.json()["recipient"] == "alice"


def test_a_token_of_a_key_pair_is_accepted_with_its_public_key(app: App) -> None:
    import jwt

    (commands,) = blocks("tokens.md", "sh")
    app.run("sh", "-euc", commands)
    (signer,) = [code for code in blocks("tokens.md", "python") if "ES256" in code]
    (app.folder / "sign.py").write_text(signer + "\nprint(notification_token('alice'))\n")
    (token,) = app.run(sys.executable, "sign.py")
    public = (app.folder / "jwt-public.pem").read_text()
    assert jwt.decode(token, public, ["ES256"])["sub"] == "alice"


@pytest.mark.parametrize("tool", ["ruby", "php", "go", "node"])
def test_no_language_is_left_out(tool: str) -> None:
    assert shutil.which(tool) is not None, "make check-languages installs it"
