"""The operations page in an outage: the real service, a real worker, and a mail server that refuses."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from host_site import *  # noqa: F403 - fixtures
from host_site import DESKTOP, PHONE, HostSite, take_picture, violations
from ops_page import *  # noqa: F403 - fixtures
from ops_page import SOON, TOCSIN, OpenOpsPage
from playwright.sync_api import Page, expect

from tests.support.ledger import deliver
from tests.support.services import free_port
from tocsin.dev.supervisor import VARIABLE, ParentPipe


class MailServer:
    """Accepts every mail, or sends the configured reply."""

    def __init__(self) -> None:
        self.word = "250 OK"
        self.taken: list[str] = []
        self._controller = Controller(self, hostname="127.0.0.1", port=free_port())

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.word.startswith("250"):
            content = envelope.content
            assert isinstance(content, bytes)
            found = re.search(rb"^Message-ID:\s*(\S+)", content, re.MULTILINE | re.IGNORECASE)
            assert found is not None
            self.taken.append(found[1].decode())
        return self.word

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self._controller.port}"

    def __enter__(self) -> MailServer:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


@contextmanager
def working(site: HostSite, smtp_url: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Yields a worker in addition to the service."""
    parent_pipe = ParentPipe()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")}
    environ |= {
        "TOCSIN_DATABASE_URL": site.dsn,
        "TOCSIN_DATA_DIR": str(folder),
        "TOCSIN_PUBLIC_URL": site.url,
        "TOCSIN_SMTP_URL": smtp_url,
        VARIABLE: str(parent_pipe.reading),
    }
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [*TOCSIN, "worker"],
            env=environ,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            pass_fds=[parent_pipe.reading],
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(SOON / 1000)
        parent_pipe.close()


def value(site: HostSite, statement: str) -> Any:
    with psycopg.connect(site.dsn, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
        return row and row[0]


def run(site: HostSite, statement: str) -> None:
    with psycopg.connect(site.dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


def problem(page: Page, what: str) -> Any:
    return page.locator(".problem").filter(has_text=what)


def email(page: Page, tile: str) -> Any:
    return page.get_by_role("article", name="Email").locator(f".tile.{tile} .value")


def expect_ended(page: Page, tile: str, count: int) -> None:
    """Expects how many mails were sent or failed since the test began, which may be more than a minute ago."""
    note = page.get_by_role("article", name="Email").locator(f".tile.{tile} .note")
    expect(note).to_have_text(f"{count} in the hour", timeout=SOON)


# Access.


def test_signing_in_and_out_by_keyboard(
    open_ops_page: OpenOpsPage, site: HostSite, key: str
) -> None:
    page = open_ops_page(signed_in=False)
    expect(page.get_by_text("tocsin api-key create NAME --scope ops")).to_be_visible()
    assert violations(page) == []
    take_picture(page, "ops-sign-in")
    page.keyboard.type("tocsin_nonsense")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("no good key")
    assert violations(page) == []
    page.keyboard.type(key)
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{site.url}/ops/")
    expect(page.locator("#live")).to_contain_text("Live", timeout=SOON)
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Sign out").press("Enter")
    expect(page.get_by_label("API key")).to_be_visible()
    page.goto(f"{site.url}/ops/")
    expect(page.get_by_label("API key")).to_be_visible()


def test_a_session_that_ended_asks_for_the_key_again(
    open_ops_page: OpenOpsPage, site: HostSite
) -> None:
    page = open_ops_page()
    run(site, "delete from tocsin.ops_session")
    expect(page.get_by_label("API key")).to_be_visible(timeout=SOON)


# An outage, from its start to its end.


def test_a_mail_server_that_refuses_and_its_dead_letters(
    open_ops_page: OpenOpsPage, site: HostSite, mail_server: MailServer, tmp_path: Path
) -> None:
    page = open_ops_page()
    expect(problem(page, "No worker is running")).to_be_visible(timeout=SOON)
    with working(site, mail_server.url, tmp_path):
        expect(page.locator("#healthy")).to_contain_text("Healthy", timeout=SOON)
        alice = site.person()
        site.notify(alice, "The last one that came")
        expect_ended(page, "sent", 1)
        mail_server.word = "550 5.7.1 Our reputation is bad"
        for number in range(12):
            site.notify(site.person(), f"Lost {number}")
        expect_ended(page, "failed", 12)
        expect(problem(page, "fail permanently")).to_contain_text("smtp_550_5.7.1")
        reason = page.locator("#dead-reasons li").filter(has_text="smtp_550_5.7.1")
        expect(reason.locator(".n")).to_have_text("12", timeout=SOON)
        assert violations(page) == []
        take_picture(page, "ops-refused")

        # fixed: one probe, then the rest
        mail_server.word = "250 OK"
        row = page.get_by_role("row").filter(has_text="Lost 3")
        row.get_by_role("button", name="Replay").click()
        expect(reason.locator(".n")).to_have_text("11", timeout=SOON)
        expect_ended(page, "sent", 2)
        reason.get_by_role("button", name="Replay all 11").click()
        reason.get_by_role("button", name="Yes, replay").click()
        expect(page.locator("#dead-none")).to_be_visible(timeout=SOON)
        expect_ended(page, "sent", 13)
    assert value(site, "select count(*) from tocsin.delivery where state = 'sent'") == 13
    assert len(set(mail_server.taken)) == 13


def test_a_mail_server_that_is_away(
    open_ops_page: OpenOpsPage, site: HostSite, tmp_path: Path
) -> None:
    port = free_port()
    page = open_ops_page()
    with working(site, f"smtp://127.0.0.1:{port}", tmp_path):
        expect(page.locator("#healthy")).to_be_visible(timeout=SOON)
        for number in range(8):
            site.notify(site.person(), f"Waits {number}")
        broken = problem(page, "Email fails")
        expect(broken).to_contain_text("smtp_connect_refused", timeout=SOON)
        expect(broken).to_contain_text("Since")
        expect(broken).to_contain_text("TOCSIN_SMTP_URL")
        expect(broken).to_contain_text("8 are waiting")
        expect(email(page, "waiting")).to_have_text("8")
        actor = page.locator(".actors li").filter(has_text="Email")
        expect(actor.locator(".state")).to_have_text(re.compile("paused|probing"))
        expect(page.locator("#waiting-table")).to_contain_text("smtp_connect_refused", timeout=SOON)
        take_picture(page, "ops-away")
        server = MailServer()
        server._controller.port = port
        with server:
            # due again later by the back-off, which this test does not wait for
            run(site, "update tocsin.delivery set due_at = now() where state = 'deferred'")
            expect_ended(page, "sent", 8)
            expect(page.locator("#healthy")).to_be_visible(timeout=SOON)


def test_a_worker_that_is_killed(
    open_ops_page: OpenOpsPage, site: HostSite, mail_server: MailServer, tmp_path: Path
) -> None:
    page = open_ops_page()
    with working(site, mail_server.url, tmp_path) as worker:
        expect(page.locator("#healthy")).to_be_visible(timeout=SOON)
        # and not still that of the previous worker
        its = page.locator(".process").filter(has_text=str(worker.pid))
        expect(its).to_be_visible(timeout=SOON)
        worker.kill()
        expect(problem(page, "No worker is running")).to_be_visible(timeout=SOON)
        expect(problem(page, "stopped reporting")).to_contain_text(str(worker.pid))
        expect(its).to_contain_text("silent")
        take_picture(page, "ops-killed")


def test_a_connection_that_is_lost_and_comes_back(open_ops_page: OpenOpsPage) -> None:
    page = open_ops_page()
    page.context.set_offline(True)
    expect(page.locator("#lost")).to_contain_text(
        "Connection lost: the service does not respond. What you see is from", timeout=SOON
    )
    assert violations(page) == []
    take_picture(page, "ops-lost")
    page.context.set_offline(False)
    expect(page.locator("#lost")).to_be_hidden(timeout=SOON)
    expect(page.locator("#live")).to_contain_text("Live")


def test_a_database_that_is_away(open_ops_page: OpenOpsPage, site: HostSite) -> None:
    page = open_ops_page()
    name = value(site, "select current_database()")
    with psycopg.connect(site.dsn, dbname="postgres", autocommit=True) as other:
        other.execute(f'alter database "{name}" allow_connections false'.encode())
        try:
            other.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,)
            )
            expect(page.locator("#lost")).to_contain_text("database does not respond", timeout=SOON)
            take_picture(page, "ops-database")
            page.reload()
            expect(
                page.get_by_role("heading", name="The database does not respond")
            ).to_be_visible()
            assert violations(page) == []
        finally:
            other.execute(f'alter database "{name}" allow_connections true'.encode())
    deadline = time.monotonic() + SOON / 1000
    while not site.is_ready():  # a moment after its return
        assert time.monotonic() < deadline
    page.get_by_role("link", name="Try again").click()
    expect(page.locator("#live")).to_contain_text("Live", timeout=SOON)


# Search.


def test_search_shows_the_reasons(open_ops_page: OpenOpsPage, site: HostSite) -> None:
    alice = site.person()
    with psycopg.connect(site.dsn, autocommit=True) as connection:
        deliver(connection, "failed", reason="smtp_550_5.1.1", recipient=alice)
    id_ = site.notify(alice, "<img src=x onerror=alert(1)> Where is it?")
    page = open_ops_page()
    page.get_by_label("Id of a recipient").fill(alice)
    page.keyboard.press("Enter")
    person = page.get_by_role("article", name=f"Person {alice}")
    expect(person).to_contain_text("@example.com")
    assert f"{alice}@" not in page.locator("#found").inner_text()
    person.get_by_role("button", name="Where is it?").click()
    why = page.get_by_role("article", name=f"Notification {id_}")
    expect(why).to_contain_text("It is in your inbox.")
    expect(why).to_contain_text("is on for")
    # shared with a colleague
    page.goto(page.url)
    expect(page.get_by_role("article", name=f"Notification {id_}")).to_be_visible()
    page.get_by_label("Id of a recipient").fill("nobody-is-this")
    page.keyboard.press("Enter")
    expect(page.locator("#found")).to_contain_text("Nothing was found for")
    page.locator("#dead-table").get_by_role("button", name="New reply").click()
    expect(page.locator("#found")).to_contain_text("could not be sent")
    assert violations(page) == []
    take_picture(page, "ops-why")


# Suppressed addresses


def test_a_suppressed_address_is_explained_and_lifted(
    open_ops_page: OpenOpsPage, site: HostSite
) -> None:
    with psycopg.connect(site.dsn, autocommit=True) as connection:
        connection.execute(
            "insert into tocsin.suppression (address, reason)"
            " values ('alice@example.com', 'bounce_5.1.1'), ('bob@example.com', 'complaint')"
        )
    page = open_ops_page()
    table = page.get_by_role("table", name="The newest addresses")
    expect(table.locator("tbody tr")).to_have_count(2)
    alice = table.get_by_role("row").filter(has_text="a***e@example.com")
    expect(alice).to_contain_text("the mailbox does not exist")
    alice.get_by_role("button", name="Lift the suppression of a***e@example.com").click()
    alice.get_by_role("button", name="No").click()
    expect(table.locator("tbody tr")).to_have_count(2)
    alice.get_by_role("button", name="Lift the suppression of a***e@example.com").click()
    take_picture(page, "ops-suppressions")
    alice.get_by_role("button", name="Yes, mail it again").click()
    expect(table.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_role("status")).to_contain_text("may be mailed again")
    with psycopg.connect(site.dsn, autocommit=True) as connection:
        left = connection.execute("select address from tocsin.suppression").fetchall()
    assert left == [("bob@example.com",)]
    assert violations(page) == []


# Look.


@pytest.fixture
def outage(site: HostSite, clean: None) -> None:
    """A busy hour with failures in its last quarter."""
    # in one transaction: what is older than ten minutes is deleted once it could have been counted
    with psycopg.connect(site.dsn) as connection:
        for ago in range(60):
            went_wrong = ago < 15
            n = 40 + (ago * 37) % 23
            deliver(
                connection,
                n=4 if went_wrong else n,
                ago=f"{ago} minutes",
                took=f"{180 + ago * 7 % 90} milliseconds",
            )
            deliver(connection, n=2, ago=f"{ago} minutes", took=f"{1 + ago % 5} seconds")
            deliver(
                connection,
                channel="push",
                n=12 + ago % 9,
                ago=f"{ago} minutes",
                took="90 milliseconds",
            )
            deliver(connection, "skipped", reason="already_read", n=ago % 4, ago=f"{ago} minutes")
            if went_wrong:
                deliver(
                    connection, "failed", reason="smtp_550_5.7.1", n=25 - ago, ago=f"{ago} minutes"
                )
            if ago % 11 == 0:
                deliver(
                    connection,
                    "failed",
                    channel="push",
                    reason="apns_Unregistered",
                    ago=f"{ago} minutes",
                )
        connection.execute(
            "update tocsin.delivery_minute_progress set upto = date_trunc('minute', now()) - interval '2 hours'"
        )
        connection.execute("delete from tocsin.delivery_minute")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "size"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_it_is_readable_in_both_themes(
    open_ops_page: OpenOpsPage,
    site: HostSite,
    outage: None,
    tmp_path: Path,
    scheme: str,
    name: str,
    size: tuple[int, int],
) -> None:
    with working(site, f"smtp://127.0.0.1:{free_port()}", tmp_path):
        for number in range(8):
            site.notify(site.person(), f"Waits {number}")
        page = open_ops_page(size=size, color_scheme=scheme)
        expect(problem(page, "Email fails")).to_be_visible(timeout=SOON)
        expect(page.locator("#dead-reasons li")).to_have_count(2)
        # per minute
        hour = re.compile("^(M[^M]+){55,59}$")  # minutes pass before it is shown
        expect(page.locator("path.bar.sent").first).to_have_attribute("d", hour, timeout=SOON)
        page.get_by_text("As a table").first.click()
        expect(page.locator("figure table tbody tr")).to_have_count(60)
        assert violations(page) == []
        page.get_by_text("As a table").first.click()
        page.evaluate("scrollTo({top: 0, behavior: 'instant'})")
        # nothing overflows at the side
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        take_picture(page, f"ops-{name}-{scheme}")
        page.screenshot(path=f"build/pages/ops-{name}-{scheme}-whole.png", full_page=True)


def test_the_day(open_ops_page: OpenOpsPage, site: HostSite, outage: None) -> None:
    page = open_ops_page()
    page.get_by_role("radio", name="Day").check(force=True)
    expect(page.locator("#ended-title")).to_contain_text("last day")
    page.get_by_text("As a table").first.click()
    expect(page.locator("figure table tbody tr")).to_have_count(144)


def test_what_is_open_and_focused_stays_so_while_numbers_move(
    open_ops_page: OpenOpsPage, site: HostSite
) -> None:
    with psycopg.connect(site.dsn, autocommit=True) as connection:
        deliver(connection, "failed", reason="smtp_550_5.7.1")
    page = open_ops_page()
    page.get_by_text("As a table").first.click()
    button = page.get_by_role("button", name="Replay delivery")
    button.focus()
    with psycopg.connect(site.dsn, autocommit=True) as connection:
        deliver(connection, n=3, ago="0 seconds")
        deliver(connection, "failed", reason="smtp_550_5.1.1", ago="0 seconds")
    expect_ended(page, "sent", 3)
    expect(page.locator("#dead-reasons li")).to_have_count(2, timeout=SOON)
    assert page.locator("details").first.get_attribute("open") is not None
    expect(button.last).to_be_focused()
