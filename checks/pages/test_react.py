"""`tocsin/react` in real React, in a page of a host app: hooks, their actions, and the bell as a component."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from host_site import *  # noqa: F403 - fixtures
from host_site import HostPage, HostSite, until
from npm_package import MODULES, WEB, install
from playwright.sync_api import BrowserContext, Page, expect

HTML = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Host</title>
<main id="root"></main><script type="module" src="/react.js"></script>"""
APP = """
import { StrictMode, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { createClient } from 'tocsin/client';
import { TocsinBell, TocsinProvider, useNotifications, useUnreadCount } from 'tocsin/react';

const client = createClient({ api: '/notify/' });

function Badge() {
  return <output>{useUnreadCount() ?? '?'} unread</output>;
}

function Inbox() {
  const [unreadOnly, setUnreadOnly] = useState(false);
  const inbox = useNotifications({ unreadOnly });
  const { items, status, more, loadMore, markRead, archive, markAllRead, marked, undo } = inbox;
  return (
    <section aria-label="Inbox" data-status={status}>
      <label>
        <input type="checkbox" checked={unreadOnly} onChange={() => setUnreadOnly(!unreadOnly)} /> Only unread
      </label>
      <ul>
        {items.map((item) => (
          <li key={item.id} className={item.read ? 'read' : 'unread'}>
            {item.title}
            <button onClick={() => markRead(item.id)}>Read {item.title}</button>
            <button onClick={() => archive(item.id)}>Archive {item.title}</button>
          </li>
        ))}
      </ul>
      {more && <button onClick={loadMore}>Older</button>}
      <button onClick={markAllRead}>Mark all</button>
      {marked > 0 && <button onClick={undo}>Undo {marked}</button>}
    </section>
  );
}

function App() {
  const [shown, setShown] = useState(true);
  window.opened = [];
  return (
    <TocsinProvider client={client}>
      <Badge />
      <TocsinBell api="/notify/" title-count words={{ title: 'News' }} onOpen={(event) => {
        event.preventDefault();
        window.opened.push(event.detail.title);
      }} />
      <button onClick={() => setShown(!shown)}>Toggle</button>
      {shown && <Inbox />}
    </TocsinProvider>
  );
}

createRoot(document.getElementById('root')).render(<StrictMode><App /></StrictMode>);
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The app of a host, bundled with the package as npm has it."""
    project = tmp_path_factory.mktemp("react")
    install(project, **{"react": MODULES / "react", "react-dom": MODULES / "react-dom"})
    (project / "app.jsx").write_text(APP)
    bundler = Path("node_modules/esbuild/bin/esbuild")
    options = ["--bundle", "--format=esm", "--jsx=automatic", "--minify", "--preserve-symlinks"]
    environ = {**os.environ, "NODE_PATH": str(MODULES)}
    mode = "--define:process.env.NODE_ENV='production'"
    command = [str(WEB / bundler), *options, mode, "app.jsx", "--outfile=bundle.js"]
    subprocess.run(command, cwd=project, env=environ, check=True, timeout=600)
    return (project / "bundle.js").read_text("utf-8")


@pytest.fixture
def page(site: HostSite, context: BrowserContext, app: str) -> Page:
    site.front.show("react", HostPage(HTML, app))
    return context.new_page()


def test_hooks_show_what_commits_and_do_what_a_person_does(
    site: HostSite, context: BrowserContext, page: Page
) -> None:
    person = site.person()
    for number in range(25):
        site.notify(person, f"Number {number:02}")
    site.sign_in(context, person)
    page.goto(f"{site.front.origin}/react.html")
    items = page.get_by_label("Inbox").get_by_role("listitem")
    count = page.get_by_role("status").first
    expect(count).to_have_text("25 unread")
    expect(items).to_have_count(20)
    page.get_by_role("button", name="Older").click()
    expect(items).to_have_count(25)
    site.notify(person, "Fresh")
    expect(items.first).to_contain_text("Fresh")
    expect(count).to_have_text("26 unread")
    page.get_by_role("button", name="Read Fresh").click()
    expect(items.first).to_have_class("read")
    expect(count).to_have_text("25 unread")
    page.get_by_role("button", name="Archive Fresh").click()
    expect(items.first).to_contain_text("Number 24")
    page.get_by_role("button", name="Mark all").click()
    expect(count).to_have_text("0 unread")
    page.get_by_label("Only unread").check()
    expect(items).to_have_count(0)
    page.get_by_label("Only unread").uncheck()
    expect(items).to_have_count(20)
    assert page.evaluate("window.opened") == []


def test_the_bell_as_a_component_and_all_hooks_share_one_stream(
    site: HostSite, context: BrowserContext, page: Page
) -> None:
    person = site.person()
    site.notify(person, "Look here", action_url="/forums/7")
    site.sign_in(context, person)
    page.goto(f"{site.front.origin}/react.html")
    bell = page.get_by_role("button", name="News, 1 unread")
    expect(bell).to_be_visible()
    expect(page.get_by_role("status").first).to_have_text("1 unread")
    expect(page).to_have_title("(1) Host")
    site.expect_streams(1)
    bell.click()
    page.get_by_role("link", name="Unread: Look here").click()
    expect(page.get_by_role("status").first).to_have_text("0 unread")
    until(lambda: page.evaluate("window.opened") == ["Look here"], lambda: "the host was not asked")
    assert page.url == f"{site.front.origin}/react.html"


def test_mark_all_can_be_undone_and_a_list_that_returns_is_up_to_date(
    site: HostSite, context: BrowserContext, page: Page
) -> None:
    person = site.person()
    site.notify(person, "First")
    site.sign_in(context, person)
    page.goto(f"{site.front.origin}/react.html")
    items = page.get_by_label("Inbox").get_by_role("listitem")
    expect(items).to_have_count(1)
    page.get_by_role("button", name="Mark all").click()
    page.get_by_role("button", name="Undo 1").click()
    expect(page.get_by_role("status").first).to_have_text("1 unread")
    page.get_by_role("button", name="Toggle").click()
    expect(items).to_have_count(0)
    site.notify(person, "Meanwhile")
    expect(page.get_by_role("status").first).to_have_text("2 unread")
    page.get_by_role("button", name="Toggle").click()
    expect(items).to_have_count(2)
    expect(items.first).to_contain_text("Meanwhile")
