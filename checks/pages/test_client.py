"""`tocsin/client` in Node, against the running service."""

from __future__ import annotations

import json
import re
from urllib.request import urlopen

from host_site import *  # noqa: F403 - fixtures
from host_site import TIMEOUT, HostSite
from node_script import MODULE, ROOT, expect_lines, run, script

TYPES = (ROOT / "web" / "src" / "public" / "tocsin-client.ts").read_text("utf-8")


def test_a_list_has_pages_and_filters(site: HostSite) -> None:
    person = site.person()
    for number in range(5):
        site.notify(person, f"Reply {number}")
    site.notify(person, "A vote", event_type="election.opened")
    titles, newer, everything, forum = run(
        site,
        person,
        """
        const first = await client.list({ limit: 2 });
        const second = await client.list({ limit: 2, cursor: first.next });
        const back = await client.list({ limit: 2, cursor: second.previous });
        print([...first.results, ...second.results].map((each) => each.title));
        print(back.results.map((each) => each.title));
        print((await Array.fromAsync?.(client.all()) ?? []).length);
        let forum = 0;
        for await (const each of client.all({ category: 'forum', read: false })) forum++;
        print(forum);
        """,
    )
    assert titles == ["A vote", "Reply 4", "Reply 3", "Reply 2"]
    assert newer == ["A vote", "Reply 4"]
    assert everything in (0, 6)  # Array.fromAsync is newer than Node 20
    assert forum == 5


def test_groups_are_listed_read_and_archived(site: HostSite) -> None:
    person = site.person()
    for number in range(3):
        site.notify(person, f"Reply {number}", subject="forum.thread:42")
    site.notify(person, "A vote", event_type="election.opened")
    output = run(
        site,
        person,
        """
        const { results, as_of } = await client.groups({ read: false });
        const [vote, thread] = results;
        print(results.map((each) => [each.count, each.latest.title]));
        const members = await client.groupMembers(thread.group_key, { limit: 2 });
        print([members.results.length, members.next !== null]);
        const { marked, undo } = await client.readGroup(thread.group_key, { as_of });
        print([marked, (await client.undo(undo)).undone]);
        await client.readGroup(thread.group_key);
        const read = (await client.groups()).results.find((each) => each.count === 3);
        print([read.unread, (await client.unreadGroup(read.group_key)).marked]);
        const archived = await client.archiveGroup(thread.group_key, { as_of });
        print((await client.undo(archived.undo)).undone);
        await client.archiveGroup(thread.group_key, { as_of });
        print((await client.setInboxPreferences({ grouped: false })).grouped);
        print((await client.groups()).results.length);
        """,
    )
    assert output == [[[1, "A vote"], [3, "Reply 2"]], [2, True], [3, 3], [0, 3], 3, False, 1]


def test_what_a_person_does_with_one_notification_and_with_all(site: HostSite) -> None:
    person = site.person()
    ids = [site.notify(person, title) for title in ("First", "Second", "Third")]
    output = run(
        site,
        person,
        f"""
        const [first, second] = {ids};
        print((await client.markRead(first)).read);
        print(await client.unreadCount());
        print((await client.markUnread(first)).read);
        await client.archive(second);
        print(await client.unreadCount());
        const {{ marked, undo }} = await client.markAllRead({{ as_of: (await client.list()).as_of }});
        print(marked);
        print(await client.undo(undo));
        print((await client.why(first)).channels.map((each) => each.channel).includes('in_app'));
        """,
    )
    assert output == [
        True,
        {"count": 2, "unseen": 2},
        False,
        {"count": 2, "unseen": 2},
        2,
        {"undone": 2},
        True,
    ]


def test_what_was_seen_and_what_was_archived(site: HostSite) -> None:
    person = site.person()
    for title in ("First", "Second"):
        site.notify(person, title)
    output = run(
        site,
        person,
        """
        const { results: [second, first], as_of } = await client.list();
        print(await client.seen(as_of));
        await client.archive(first.id);
        const archive = await client.list({ archived: true });
        print(archive.results.map((each) => [each.title, each.archived]));
        print((await client.unarchive(first.id)).archived);
        const { archived, undo } = await client.archiveAll({ read: false });
        print([archived, await client.unreadCount()]);
        print([await client.undo(undo), await client.unreadCount()]);
        """,
    )
    assert output == [
        {"count": 2, "unseen": 0},
        [["First", True]],
        False,
        [2, {"count": 0, "unseen": 0}],
        [{"undone": 2}, {"count": 2, "unseen": 0}],
    ]


def test_settings_devices_and_topics(site: HostSite) -> None:
    output = run(
        site,
        site.person(),
        """
        print((await client.setPreferences({ 'forum.*': { email: false } })).overrides);
        print((await client.setDigest({ frequency: 'daily' })).frequency);
        print((await client.setQuietHours({ starts: '22:00', ends: '07:00', timezone: 'UTC' })).starts);
        print((await client.quietHours()).ends);
        print((await client.eventTypes()).some((each) => each.category === 'forum'));
        await client.registerDevice({ token: 'a'.repeat(64), platform: 'ios' });
        print((await client.devices()).map((each) => each.token));
        await client.unregisterDevice('a'.repeat(64));
        print((await client.devices()).length);
        print((await client.subscribe('forum.thread:42/a', 'mentions')).level);
        print((await client.subscriptions()).results.map((each) => each.topic));
        await client.unsubscribe('forum.thread:42/a');
        print((await client.subscriptions()).results);
        """,
    )
    assert output == [
        {"forum.*": {"email": False}}, "daily", "22:00", "07:00", True, ["aaaaaa"], 0, "mentions",
        ["forum.thread:42/a"], [],
    ]  # fmt: skip


def test_each_notification_comes_once_over_reconnects_and_restarts(site: HostSite) -> None:
    person = site.person()
    follow = """
    for await (const { event, id, data } of client.stream({ lastEventId: process.env.LAST }))
      if (event === 'notification' || event === 'badge') print([event, id, data.title ?? data.count]);
    """
    with script(site, person, follow) as running:
        assert running.line()[::2] == ["badge", 0]
        site.notify(person, "Before")
        seen = [running.line(), running.line()]
        site.front.cut()
        site.notify(person, "While away")
        while seen[-1][2] != "While away" and ["badge", 2] not in [each[::2] for each in seen]:
            seen.append(running.line())
        while "While away" not in [each[2] for each in seen]:
            seen.append(running.line())
        titles = [each[2] for each in seen if each[0] == "notification"]
        assert titles == ["Before", "While away"]
        last = next(each[1] for each in seen if each[2] == "While away")
    site.notify(person, "After the restart")
    with script(site, person, follow, LAST=last) as running:
        line = running.line()
        while line[0] != "notification":
            line = running.line()
        assert line[2] == "After the restart"


def test_a_token_that_expires_is_asked_for_again(site: HostSite) -> None:
    person = site.person()
    text = """
    let asked = 0;
    const tokens = JSON.parse(process.env.TOKENS);
    const mine = createClient({ api, getToken: () => tokens[Math.min(asked++, 1)] });
    for await (const { event, data } of mine.stream()) {
      if (event === 'badge') print([asked, data.count]);
    }
    """
    tokens = json.dumps([site.token(person, ttl=3), site.token(person)])
    with script(site, person, text, TOKENS=tokens) as running:
        expect_lines(running, [2, 0])


def test_a_refused_token_is_a_problem_for_calls_and_streams(site: HostSite) -> None:
    person = site.person()
    output = run(
        site,
        person,
        """
        const other = createClient({ api, token: 'no token' });
        const caught = (error) => print([error instanceof Problem, error.status, error.isSignedOut]);
        await other.unreadCount().catch(caught);
        try { for await (const each of other.stream()) print(each); } catch (error) { caught(error); }
        await createClient({ api }).list().catch(caught);
        await client.list({ cursor: 'no cursor' }).catch((error) => print([error.status, error.fields[0].field]));
        await createClient({ api: 'http://127.0.0.1:1/', token }).list().catch((error) => print(error.status));
        try { createClient({ api: 'notify.example.com', token }); } catch (error) { print(error.message); }
        """,
    )
    assert output[:3] == [[True, 401, True]] * 3
    assert output[3:5] == [[422, "cursor"], 0]
    assert output[5].startswith("createClient: api has to be the URL of Tocsin, such as https://")


def test_a_stream_ends_with_its_signal_and_with_its_loop(site: HostSite) -> None:
    person = site.person()
    output = run(
        site,
        person,
        """
        const closing = new AbortController();
        for await (const { event } of client.stream({ signal: closing.signal })) {
          print(event);
          closing.abort();
        }
        for await (const { event } of client.stream()) break;
        print('ended');
        """,
    )
    assert output == ["badge", "ended"]  # and the script ended: nothing stays open
    site.expect_streams(0)


def test_an_event_source_of_node_opens_the_stream_with_a_ticket(site: HostSite) -> None:
    person = site.person()
    text = """
    const { url } = await client.streamTicket();
    const source = new EventSource(url);
    source.addEventListener('badge', ({ data }) => print(JSON.parse(data)));
    """
    with script(site, person, text, "--experimental-eventsource") as running:
        assert running.line() == {"count": 0, "unseen": 0}
        site.notify(person)
        assert running.line() == {"count": 1, "unseen": 1}


def members(interface: str) -> set[str]:
    """Returns the names in an interface of the client's types."""
    body = re.search(
        rf"export interface {interface}\b[^{{]*\{{(.*?)^\}}", TYPES, re.DOTALL | re.MULTILINE
    )
    assert body is not None
    return set(re.findall(r"^  (\w+)\??:", body[1], re.MULTILINE))


def test_the_types_are_the_shapes_of_the_api(site: HostSite) -> None:
    person = site.person()
    id_ = site.notify(person)
    site.request(person, "POST", "push-tokens/", {"token": "b" * 64, "platform": "ios"})

    def shape(path: str) -> set[str]:
        found = site.request(person, "GET", path)
        return set(found["results"][0] if found.get("results") else found)

    assert members("Notification") == shape(f"notifications/{id_}/")
    assert members("Preferences") == shape("notification-preferences/")
    assert members("DigestPreferences") == shape("digest-preferences/")
    assert members("QuietHours") == shape("quiet-hours/")
    assert members("Device") == shape("push-tokens/")
    assert members("Category") == shape("event-types/")
    types = site.request(person, "GET", "event-types/")["results"][0]["event_types"]
    assert members("EventType") == set(types[0])
    assert members("Count") == shape("notifications/unread-count/")
    assert members("Group") == shape("notifications/?grouped=true")
    assert members("InboxPreferences") == shape("inbox-preferences/")
    page = set(site.request(person, "GET", "notifications/"))
    assert members("Page") | members("NotificationPage") == page


def test_a_page_may_load_the_client_from_the_service(site: HostSite) -> None:
    with urlopen(f"{site.url}/assets/tocsin-client.js", timeout=TIMEOUT) as response:
        assert response.read() == MODULE.read_bytes()
