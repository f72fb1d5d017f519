"""tocsin import: an earlier inbox with its times and read states, once, and nothing is sent."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from tocsin.cli import main

Db = psycopg.Connection[Any]
Import = Callable[..., Result]

COLUMNS = "key,recipient,event_type,title,created_at,read_at,body,action_url,metadata,initiator"
OLD = "2024-03-01T10:00:00Z"


@pytest.fixture
def people(db: Db) -> None:
    db.execute("select tocsin.upsert_recipient('alice', 'alice@example.com', 'Alice')")
    db.execute("select tocsin.upsert_recipient('bob', 'bob@example.com', 'Bob')")


@pytest.fixture
def run(dsn: str, people: None, monkeypatch: pytest.MonkeyPatch) -> Import:
    """Runs `tocsin import` with these arguments."""
    monkeypatch.setenv("TOCSIN_DATABASE_URL", dsn)

    def run_import(*arguments: object) -> Result:
        return CliRunner().invoke(main, ["import", *map(str, arguments)])

    return run_import


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """A CSV file of these rows, each a mapping from column to text."""

    def write(*rows: dict[str, str]) -> Path:
        path = tmp_path / "inbox.csv"
        with path.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, COLUMNS.split(","))
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


def row(key: int, **changed: str) -> dict[str, str]:
    plain = {"recipient": "alice", "event_type": "forum.mention", "title": f"Mention {key}"}
    return {"key": str(key), "created_at": OLD, **plain, **changed}


def test_imported_notifications_have_their_time_and_read_state_and_the_badge_is_exact(
    db: Db, run: Import, file: Callable[..., Path]
) -> None:
    full = {
        "body": "Look",
        "action_url": "/f/1",
        "metadata": '{"post": 1}',
        "initiator": "bob",
        "read_at": "2024-03-02 11:00",
    }
    result = run("csv", file(row(1), row(2, **full), row(3)))
    assert result.output == "3 imported, 0 were imported before, 0 refused.\n"
    found = db.execute(
        """
        select e.title, e.body, e.action_url, e.metadata, e.initiator, n.created_at, n.read_at
        from tocsin.notification n join tocsin.event e using (event_id) where n.in_inbox order by e.title
        """
    ).fetchall()
    at = datetime(2024, 3, 1, 10, tzinfo=UTC)
    read_at = datetime(2024, 3, 2, 11, tzinfo=UTC)
    assert found[:2] == [
        ("Mention 1", "", None, {}, None, at, None),
        ("Mention 2", "Look", "/f/1", {"post": 1}, "bob", at, read_at),
    ]
    assert db.execute("select tocsin.unread_count('alice')").fetchone() == (2,)


def test_nothing_is_sent_of_what_was_imported(
    db: Db, run: Import, file: Callable[..., Path]
) -> None:
    db.execute("update tocsin.channel set available = true")
    run("csv", file(row(1), row(2, event_type="compliance.overdue")))  # its email is mandatory
    for table in ("delivery", "event_queue", "digest_item", "lease"):
        assert db.execute(f"select count(*) from tocsin.{table}".encode()).fetchone() == (0,)
    decisions = db.execute("select distinct decisions from tocsin.notification").fetchall()
    off = ["off", "imported"]
    assert decisions == [({"in_app": ["on", "imported"], "email": off, "push": off},)]


def test_open_streams_do_not_show_it_as_news(
    db: Db, run: Import, file: Callable[..., Path]
) -> None:
    before = db.execute("select pg_current_snapshot()::text").fetchone()
    run("csv", file(row(1)))
    assert before is not None
    updates = db.execute(
        "select tocsin.stream_updates(array['alice'], array['alice'], array[%s::pg_snapshot],"
        " array[null::pg_snapshot], array[null::bigint], 100)::json",
        before,
    ).fetchone()
    assert updates is not None
    assert updates[0]["counts"] == [1]
    assert updates[0]["arrived"] == []


def test_an_import_can_be_repeated_and_continued(
    db: Db, run: Import, file: Callable[..., Path]
) -> None:
    run("csv", "--batch", 2, file(row(1), row(2), row(3)))
    result = run("csv", "--batch", 2, file(*(row(key) for key in range(1, 6)), row(5)))
    assert result.output == "2 imported, 4 were imported before, 0 refused.\n"
    result = run("csv", "--source", "another file", file(row(1)))
    assert result.output.startswith("1 imported")
    assert db.execute("select tocsin.unread_count('alice')").fetchone() == (6,)


def test_an_erased_person_does_not_come_back(
    db: Db, run: Import, file: Callable[..., Path]
) -> None:
    run("csv", file(row(1)))
    db.execute("select tocsin.erase_recipient('alice')")
    db.execute("select tocsin.upsert_recipient('alice')")
    assert run("csv", file(row(1))).output.startswith("0 imported, 1 were imported before")


def test_a_dry_run_checks_and_keeps_nothing(db: Db, run: Import, file: Callable[..., Path]) -> None:
    result = run("csv", "--dry-run", file(row(1), row(2, recipient="nobody")))
    assert "1 would be imported, 0 were imported before, 1 refused." in result.output
    assert result.exit_code == 1
    assert db.execute("select count(*) from tocsin.event").fetchone() == (0,)
    assert db.execute("select count(*) from tocsin.imported").fetchone() == (0,)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"recipient": "nobody"}, "unknown recipient 'nobody'; make the people known first"),
        ({"event_type": "forum.mentoin"}, "unknown event type 'forum.mentoin'; the nearest are"),
        ({"title": "two\nlines"}, "title has a line break"),
        ({"title": ""}, "title is empty"),
        ({"action_url": "javascript:alert(1)"}, "action_url is neither a path nor"),
        ({"metadata": "{"}, "metadata is not a JSON object"),
        ({"created_at": "yesterday"}, "created_at 'yesterday' is no time such as"),
        ({"created_at": "2999-01-01"}, "created_at is in the future"),
        ({"body": "nul \x00 inside"}, "unsupported Unicode escape sequence"),
    ],
)
def test_a_wrong_row_is_named_by_its_line_and_the_others_are_imported(
    run: Import, file: Callable[..., Path], changed: dict[str, str], message: str
) -> None:
    result = run("csv", file(row(1), row(2, **changed), row(3)))
    assert result.exit_code == 1
    line = 4 if "\n" in changed.get("title", "") else 3
    assert f"line {line}: {message}" in result.output
    assert "2 imported, 0 were imported before, 1 refused." in result.output


def test_after_twenty_faults_the_rest_is_counted(run: Import, file: Callable[..., Path]) -> None:
    result = run("csv", file(*(row(key, recipient="nobody") for key in range(25))))
    assert result.output.count("unknown recipient") == 20
    assert "and 5 more." in result.output


def test_unknown_people_are_created_on_request(
    db: Db, run: Import, file: Callable[..., Path]
) -> None:
    result = run("csv", "--create-recipients", file(row(1, recipient="carol")))
    assert result.exit_code == 0
    assert db.execute("select tocsin.unread_count('carol')").fetchone() == (1,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"key,recipient,title,created_at\n", "The first line has no column event_type"),
        (COLUMNS.encode() + b",colour\n", "There is no column 'colour'"),
        (COLUMNS.encode() + b'\n1,alice,forum.mention,"open', "unexpected end of data"),
        (COLUMNS.encode() + b"\n1,alice,forum.mention,caf\xe9," + OLD.encode(), "it is not UTF-8"),
        (b"", "The first line has no column key"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_with_the_cure(
    run: Import, tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "inbox.csv"
    path.write_bytes(content)
    result = run("csv", path)
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.count("\n") == 1


# The table that django-notifications 1.8 documents; checks/frameworks/django has the real one.
DJANGO = """
    create table django_content_type (id int primary key, app_label text, model text);
    insert into django_content_type values (1, 'auth', 'user'), (2, 'forum', 'thread');
    create table auth_user (id int primary key);
    insert into auth_user values (7), (8);
    create table notifications_notification (
        id serial primary key, level varchar(20) not null default 'info', unread boolean not null default true,
        actor_object_id varchar(255) not null, verb varchar(255) not null, description text,
        target_object_id varchar(255), action_object_object_id varchar(255), timestamp timestamptz not null,
        public boolean not null default true, action_object_content_type_id int, actor_content_type_id int not null,
        recipient_id int not null references auth_user, target_content_type_id int,
        deleted boolean not null default false, emailed boolean not null default false, data text
    );
    insert into notifications_notification
        (recipient_id, actor_content_type_id, actor_object_id, verb, description, target_content_type_id,
         target_object_id, timestamp, unread, deleted, data)
    values
        (7, 1, '8', 'replied to', 'Hello', 2, '42', '2024-03-01 10:00+00', true, false, '{"url": "/t/42", "n": 1}'),
        (7, 2, '42', 'was closed', null, null, null, '2024-03-02 10:00+00', false, false, null),
        (7, 1, '8', 'left', null, null, null, '2024-03-03 10:00+00', true, true, null);
"""


@pytest.fixture
def django(db: Db) -> None:
    db.execute(DJANGO)
    db.execute("select tocsin.upsert_recipient('7'), tocsin.upsert_recipient('8', name => 'Bob')")


def test_the_table_of_django_notifications_is_imported(db: Db, run: Import, django: None) -> None:
    arguments = ("--verb", "replied to=forum.new_reply", "--event-type", "forum.mention")
    result = run("django-notifications", *arguments)
    assert result.output == "2 imported, 0 were imported before, 0 refused.\n"
    found = db.execute(
        "select event_type, title, body, action_url, initiator, metadata, read_at is null"
        " from tocsin.notification join tocsin.event e using (event_id, event_type) order by event_id"
    ).fetchall()
    assert found[0][:5] == ("forum.new_reply", "Bob replied to", "Hello", "/t/42", "8")
    assert found[0][5] == {
        "django_notifications": {
            "level": "info",
            "actor": "auth.user:8",
            "target": "forum.thread:42",
            "data": {"url": "/t/42", "n": 1},
        }
    }
    assert found[0][6]
    assert found[1][:5] == ("forum.mention", "Was closed", "", None, None)
    assert not found[1][6]
    assert db.execute("select tocsin.unread_count('7')").fetchone() == (1,)
    assert run("django-notifications", *arguments).output.startswith("0 imported, 2 were")


def test_a_verb_without_an_event_type_is_named(run: Import, django: None) -> None:
    result = run("django-notifications", "--verb", "replied to=forum.new_reply")
    assert "id 2: no event type for the verb 'was closed'; give --verb" in result.output
    assert "Give --event-type" in run("django-notifications").output


def test_a_table_that_is_not_there_is_named(run: Import) -> None:
    result = run("django-notifications", "--event-type", "forum.mention", "--table", "elsewhere")
    assert result.output == (
        'tocsin: There is no table "public"."elsewhere": name it with --table, or its database with --dsn.\n'
    )


GUIDE = Path(__file__).parent.parent.parent / "docs/guides/importing.md"


def test_the_csv_of_the_guide_is_imported(run: Import, tmp_path: Path) -> None:
    example = re.search(r"^```csv\n(.*?)^```", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert example is not None
    path = tmp_path / "inbox.csv"
    path.write_text(example[1], "utf-8")
    assert run("csv", path).output == "2 imported, 0 were imported before, 0 refused.\n"


class Novu(BaseHTTPRequestHandler):
    """The feed of a subscriber, in the shape of Novu's reference, in two pages."""

    def do_GET(self) -> None:
        first = "page=0" in self.path
        assert self.path.startswith("/v1/subscribers/alice/notifications/feed?")
        assert self.headers["Authorization"] == "ApiKey k"
        entry = {
            "_id": "615c1" if first else "615c2",
            "templateIdentifier": "comment-reply" if first else "welcome",
            "content": "Bob\nreplied",
            "subject": None if first else "Welcome",
            "createdAt": "2024-12-10T10:10:59.639Z",
            "read": first,
            "cta": {"type": "redirect", "data": {"url": "/posts/1"}} if first else None,
            "payload": {"post": 1},
        }
        body = json.dumps({"hasMore": first, "page": 0, "pageSize": 1, "data": [entry]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def test_the_guides_script_for_novu_makes_a_csv_that_is_imported(
    db: Db, run: Import, tmp_path: Path
) -> None:
    script = re.search(r"^```python\n(.*?)^```", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert script is not None
    with ThreadingHTTPServer(("127.0.0.1", 0), Novu) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = subprocess.run(
            [sys.executable, "-c", script[1]],
            input="alice\n",
            env={"NOVU_API_URL": url, "NOVU_API_KEY": "k"},
            capture_output=True,
            text=True,
            check=True,
        )
        server.shutdown()
    path = tmp_path / "novu.csv"
    path.write_text(done.stdout, "utf-8")
    assert run("csv", path).output == "2 imported, 0 were imported before, 0 refused.\n"
    found = db.execute(
        "select title, body, action_url, event_type, read_at is null"
        " from tocsin.notification join tocsin.event e using (event_id, event_type) order by event_id"
    ).fetchall()
    assert found == [
        ("Bob replied", "", "/posts/1", "forum.new_reply", False),
        ("Welcome", "Bob\nreplied", None, "forum.mention", True),
    ]
