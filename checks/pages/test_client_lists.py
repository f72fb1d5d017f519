"""The lists of `tocsin/client` in Node, which follow the stream."""

from __future__ import annotations

from host_site import *  # noqa: F403 - fixtures
from host_site import HostSite
from node_script import UNTIL, expect_lines, script


def test_each_change_of_a_list_can_be_undone(site: HostSite) -> None:
    person = site.person()
    for title in ("First", "Second"):
        site.notify(person, title)
    text = """
    const inbox = client.inbox();
    inbox.subscribe(() => {});
    const state = () => [inbox.get().items.map((each) => each.title + (each.read ? ' read' : '')), inbox.get().count];
    const both = [['Second', 'First'], 2];
    await until(state, both);
    const [second, first] = inbox.get().items;
    await inbox.markRead(first.id);
    print([state(), inbox.get().done]);
    await inbox.undo();
    print([state(), inbox.get().done]);
    await inbox.archive(second.id);
    print([state(), inbox.get().done]);
    await inbox.undo();
    print([state(), inbox.get().done]);
    print([await inbox.archiveAll(), inbox.get().done]);
    await until(state, [[], 0]);
    await inbox.undo();
    await until(state, both);
    print(inbox.get().done);
    """
    both = [["Second", "First"], 2]
    with script(site, person, UNTIL + text) as running:
        assert running.line() == [[["Second", "First read"], 1], {"what": "read", "n": 1}]
        assert running.line() == [both, None]
        assert running.line() == [[["First"], 1], {"what": "archived", "n": 1}]
        assert running.line() == [both, None]
        assert running.line() == [2, {"what": "all-archived", "n": 2}]
        assert running.line() is None


def test_the_archive_is_a_list_too(site: HostSite) -> None:
    person = site.person()
    site.notify(person, "First")
    text = """
    const inbox = client.inbox();
    const archive = client.inbox({ archived: true });
    for (const list of [inbox, archive]) list.subscribe(() => {});
    const titles = () => [inbox, archive].map((list) => list.get().items.map((each) => each.title));
    const state = () => [...titles(), inbox.get().unseen];
    await until(state, [['First'], [], 1]);
    await inbox.archive(inbox.get().items[0].id);
    await until(state, [[], ['First'], 0]);
    await archive.unarchive(archive.get().items[0].id);
    await until(state, [['First'], [], 1]);
    await inbox.seen();
    print(state());
    """
    with script(site, person, UNTIL + text) as running:
        assert running.line() == [["First"], [], 0]


def test_an_inbox_is_kept_up_to_date_while_somebody_subscribes(site: HostSite) -> None:
    person = site.person()
    site.notify(person, "First")
    text = """
    const inbox = client.inbox();
    const stop = [inbox, client.badge].map((store) => store.subscribe(() => {
      const { items, count, status } = inbox.get();
const titles = items.map((each) => each.title + (each.read ? ' read' : ''));
      print([titles, count, client.badge.get()?.count ?? null, status]);
    }));
    const same = inbox.get() === inbox.get();
    await readLine();
    const [second, first] = inbox.get().items;
    await inbox.markRead(second.id);
    const [changed, kept] = inbox.get().items;
    print([same, changed === second, changed.read, kept === first]);
    await readLine();
    await inbox.archive(first.id);
    print(await inbox.markAllRead());
    await inbox.markRead(123).catch(() => {});
    """
    with script(site, person, text) as running:
        expect_lines(running, [["First"], 1, 1, "ready"])
        site.notify(person, "Second")
        expect_lines(running, [["Second", "First"], 2, 2, "ready"])
        running.write()
        both = [["Second read", "First"], 1, 1, "ready"]
        expect_lines(running, [True, False, True, True], both)
        running.write()
        expect_lines(running, 0, [["Second read"], 0, 0, "ready"])


def test_what_arrives_while_the_list_is_loaded_is_in_it(site: HostSite) -> None:
    person = site.person()
    site.notify(person, "Before")
    text = """
    const held = async (url, options) => {
      const response = await fetch(url, options);
      if (!url.search.includes('limit=')) return response;
      print('made');
      await readLine();
      return response;
    };
    const holding = createClient({ api, token, fetch: held });
    const inbox = holding.inbox();
    holding.badge.subscribe(() => {});
    await until(() => holding.badge.get()?.count, 1);
    inbox.subscribe(() => print([inbox.get().items.map((each) => each.title), inbox.get().count]));
    """
    with script(site, person, UNTIL + text) as running:
        expect_lines(running, "made")
        site.notify(person, "Meanwhile")
        expect_lines(running, [[], 2])
        running.write()
        expect_lines(running, [["Meanwhile", "Before"], 2])


def test_what_came_before_the_stream_began_is_in_a_list_that_was_loaded_before(
    site: HostSite,
) -> None:
    person = site.person()
    site.notify(person, "Before")
    text = """
    const held = async (url, options) => {
      if (url.pathname.endsWith('/stream/')) await readLine();
      return fetch(url, options);
    };
    const inbox = createClient({ api, token, fetch: held }).inbox();
    inbox.subscribe(() => print([inbox.get().items.map((each) => each.title), inbox.get().count]));
    """
    with script(site, person, text) as running:
        expect_lines(running, [["Before"], None])
        site.notify(person, "Between")
        running.write()
        expect_lines(running, [["Between", "Before"], 2])


def test_stores_follow_the_person_who_signs_in(site: HostSite) -> None:
    alice, bob = site.person(), site.person()
    site.notify(alice, "For her")
    site.notify(bob, "For him")
    text = """
    const inbox = client.inbox();
    inbox.subscribe(() => print([inbox.get().items.map((each) => each.title), inbox.get().count]));
    await readLine();
    client.signIn({ token: process.env.OTHER });
    """
    with script(site, alice, text, OTHER=site.token(bob)) as running:
        expect_lines(running, [["For her"], 1])
        running.write()
        expect_lines(running, [["For him"], 1])


def test_stores_without_subscribers_show_nothing_of_the_person_before(site: HostSite) -> None:
    alice, bob = site.person(), site.person()
    site.notify(alice, "For her")
    text = """
    const inbox = client.inbox();
    const seen = () => print([inbox.get().items.map((each) => each.title), client.badge.get()?.count ?? null]);
    const leave = [inbox.subscribe(seen), client.badge.subscribe(seen)];
    await readLine();
    for (const each of leave) each();
    await new Promise((resolve) => setTimeout(resolve, 1_500)); // until the connection is closed
    client.signIn({ token: process.env.OTHER });
    seen();
    """
    with script(site, alice, text, OTHER=site.token(bob)) as running:
        expect_lines(running, [["For her"], 1])
        running.write()
        expect_lines(running, [[], None])


def test_changes_of_a_list_reach_the_service_in_their_order(site: HostSite) -> None:
    person = site.person()
    for title in ("First", "Second"):
        site.notify(person, title)
    text = """
    const held = async (url, options) => {
      const body = JSON.parse(options.body ?? '{}');
      const early = body.read === true || url.pathname.endsWith('/mark-all-read/');
      if (early) await new Promise((resolve) => setTimeout(resolve, 500));
      const response = await fetch(url, options);
      if (options.method !== 'GET') print([url.pathname.split('/').at(-2), body.read ?? null]);
      return response;
    };
    const inbox = createClient({ api, token, fetch: held }).inbox();
    inbox.subscribe(() => {});
    await until(() => inbox.get().items.length, 2);
    const [second, first] = inbox.get().items;
    await Promise.all([inbox.markRead(first.id), inbox.markUnread(first.id)]);
    await Promise.all([inbox.markAllRead(), inbox.archive(second.id)]);
    """
    with script(site, person, UNTIL + text) as running:
        assert running.line() == ["read", True]
        assert running.line() == ["read", False]
        assert running.line() == ["mark-all-read", None]
        assert running.line()[0].isdigit()
