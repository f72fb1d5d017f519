"""Flask with Flask-SQLAlchemy and Flask-Babel, on psycopg and psycopg2; and the guide of SQLAlchemy, with Alembic."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from flask import Flask
from flask_babel import Babel, lazy_gettext
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import MetaData, create_engine, inspect
from sqlalchemy.orm import Session

from tests.support import guides
from tocsin import InvalidArgument, NotifyError, notify, unread_count, upsert_recipient
from tocsin.contrib.sqlalchemy import include_name, keep_recipients
from tocsin.testing import Outbox, OutboxError


def url(driver: str) -> str:
    return os.environ["APP_DSN"].replace("sql://", f"sql+{driver}://")


@pytest.fixture(params=["psycopg", "psycopg2"])
def app(request: pytest.FixtureRequest) -> Flask:
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = url(request.param)
    Babel(app)
    return app


def test_a_view_notifies_on_the_session_with_a_lazy_title(app: Flask) -> None:
    db = SQLAlchemy(app)

    @app.post("/orders/<int:user>")
    def order(user: int) -> dict[str, int]:
        event = notify(
            db.session,
            recipient=user,
            event_type="billing.invoice_issued",
            title=lazy_gettext("Invoice"),
            metadata={"label": lazy_gettext("Paid")},
        )
        db.session.commit()
        return {"event": event}

    with app.app_context():
        upsert_recipient(db.session, 31)
        db.session.commit()
        before = unread_count(db.session, 31)
    assert app.test_client().post("/orders/31").json["event"] > 0
    with app.app_context():
        assert unread_count(db.session, 31) == before + 1
        with pytest.raises(InvalidArgument, match=r"db\.session"):
            notify(db, recipient=31, event_type="forum.mention", title="A")
        db.session.remove()
        db.engine.dispose()


def test_objects_keep_people_in_step(app: Flask) -> None:
    db = SQLAlchemy(app)

    class Member(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        mail = db.Column(db.String)

    keep_recipients(Member, email="mail")
    with pytest.raises(TypeError, match="no field 'mail'"):
        keep_recipients(Member, mail="mail")
    with pytest.raises(TypeError, match="Member has no attribute 'address': pass the name of one"):
        keep_recipients(Member, email="address")
    owner = create_engine(os.environ["OWNER_DSN"].replace("sql://", "sql+psycopg://"))

    def address(id_: int) -> Any:
        with owner.connect() as connection:
            found = connection.exec_driver_sql(
                "select email from tocsin.recipient where recipient_id = %s", (str(id_),)
            )
            return found.scalar()

    with app.app_context():
        db.create_all()
        member = Member(mail="old@example.com")
        db.session.add(member)
        db.session.rollback()
        member = Member(mail="old@example.com")
        db.session.add(member)
        db.session.commit()
        id_ = member.id
        assert address(id_) == "old@example.com"
        member.mail = "new@example.com"
        db.session.commit()
        assert address(id_) == "new@example.com"
        db.session.delete(member)
        db.session.commit()
        assert address(id_) is None
        db.session.remove()
        db.drop_all()
        db.engine.dispose()
    owner.dispose()


def test_autogenerate_leaves_tocsins_schemas_alone() -> None:
    engine = create_engine(os.environ["OWNER_DSN"].replace("sql://", "sql+psycopg://"))
    with engine.connect() as connection:
        assert {"tocsin", "tocsin_queue"} <= set(inspect(connection).get_schema_names())
        options = {"include_schemas": True, "include_name": include_name}
        context = MigrationContext.configure(connection, opts=options)
        found = compare_metadata(context, MetaData())
    engine.dispose()
    assert [each for each in found if "tocsin" in str(each)] == []
    assert "include_name=include_name" in guides.files("sqlalchemy.md")["env.py"]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of the guide, with its tables."""
    monkeypatch.setenv("DATABASE_URL", url("psycopg"))
    guides.write("sqlalchemy.md", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import shop

    shop.Base.metadata.create_all(shop.engine)
    yield shop
    shop.Base.metadata.drop_all(shop.engine)
    shop.engine.dispose()


def test_the_guides_code_does_what_it_claims(shop: ModuleType, tmp_path: Path) -> None:
    command = [sys.executable, "try_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "unread: 2\n", done.stderr
    ids = [uuid4(), uuid4()]
    with shop.Session(shop.engine) as session, session.begin():
        session.add_all([shop.Customer(id=id_, email=f"{id_}@x.example", name="N") for id_ in ids])
    assert shop.issue(ids[0]) > 0
    assert shop.announce("Chapter 2") > 0
    assert [shop.badge(id_) for id_ in ids] == [2, 1]
    assert shop.issue_or_not(ids[1], "billing.invoice_issued") == ""
    assert "billing.invoice_issued" in shop.issue_or_not(ids[1], "billing.invoice_isued")
    assert shop.badge(ids[1]) == 2


def test_the_client_imports_no_framework() -> None:
    code = "import sys, tocsin; print({'flask', 'sqlalchemy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_test_asserts_on_what_its_session_notified(driver: str) -> None:
    engine = create_engine(os.environ["OWNER_DSN"].replace("sql://", f"sql+{driver}://"))
    alice = uuid4()
    with Session(engine) as session:
        outbox = Outbox(session)
        outbox.clear()
        outbox.assert_nothing()
        upsert_recipient(session, alice, email="alice@example.com")
        notify(session, recipient=alice, event_type="forum.new_reply", title="Hello")
        assert outbox.assert_notified(alice, "forum.new_reply").title == "Hello"
        with pytest.raises(NotifyError):
            notify(session, recipient=uuid4(), event_type="forum.new_reply", title="Hello")
        with pytest.raises(OutboxError, match="savepoint"):
            outbox.assert_nothing()
        session.rollback()
        outbox.assert_nothing()
    engine.dispose()
