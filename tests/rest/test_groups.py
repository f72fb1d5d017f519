"""The grouped inbox over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.http_fixtures import *  # noqa: F403 - fixtures
from tests.support.http_fixtures import Db, NewNotification

INBOX = "/api/notifications/"
THREAD = "forum.thread:42"
TITLE = "New reply in 'Spring Formal Planning'"


async def listed(client: httpx.AsyncClient, **query: Any) -> dict[str, Any]:
    response = await client.get(INBOX, params={"grouped": "true", **query})
    assert response.status_code == 200, response.text
    return dict(response.json())


async def groups(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    return list((await listed(client, **query))["results"])


async def unread(client: httpx.AsyncClient) -> int:
    return int((await client.get(f"{INBOX}unread-count/")).json()["count"])


async def test_unread_ones_of_a_type_and_subject_are_one_item(
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db
) -> None:
    for person, name in (("bob", "Bob"), ("carol", "Carol"), ("dave", "Dave"), ("erin", "Erin")):
        db.execute("select tocsin.upsert_recipient(%s, null, %s)", (person, name))
    ids = [
        new_notification(subject=THREAD, title=TITLE, initiator=person)
        for person in ("bob", "bob", "carol", "dave", "erin")
    ]
    (group,) = await groups(alice)
    newest = (await alice.get(f"{INBOX}{ids[-1]}/")).json()
    oldest = (await alice.get(f"{INBOX}{ids[0]}/")).json()
    assert group == {
        "group_key": group["group_key"],
        "count": 5,
        "unread": 5,
        "initiators": [
            {"id": "erin", "name": "Erin", "avatar_url": None},
            {"id": "dave", "name": "Dave", "avatar_url": None},
            {"id": "carol", "name": "Carol", "avatar_url": None},
        ],
        "others": 1,
        "title": "Erin and 3 others replied to 'Spring Formal Planning'",
        "latest": newest,
        "oldest_at": oldest["created_at"],
        "capped": False,
    }


async def test_the_title_is_in_the_persons_language(
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db
) -> None:
    db.execute("select tocsin.upsert_recipient('alice', null, null, 'de-AT')")
    db.execute("select tocsin.upsert_recipient('bob', null, 'Bob')")
    for person in ("carol", "bob"):
        new_notification(subject=THREAD, title=TITLE, initiator=person)
    (group,) = await groups(alice)
    assert (
        group["title"]
        == "Bob und eine weitere Person haben auf \u201eSpring Formal Planning\u201c geantwortet"
    )


async def test_another_type_or_subject_is_another_group(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    new_notification(subject=THREAD)
    new_notification(subject="forum.thread:43")
    new_notification(subject=THREAD, event_type="forum.mention")
    new_notification(subject=THREAD)
    assert [
        (each["latest"]["event_type"], each["latest"]["subject"], each["count"])
        for each in await groups(alice)
    ] == [
        ("forum.new_reply", THREAD, 2),
        ("forum.mention", THREAD, 1),
        ("forum.new_reply", "forum.thread:43", 1),
    ]


async def test_without_a_subject_or_with_group_false_each_is_a_group_of_one(
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db
) -> None:
    for _ in range(2):
        new_notification()
        new_notification(subject=THREAD, event_type="forum.mention")
    db.execute("update tocsin.event_type set grouped = false where event_type = 'forum.mention'")
    assert [each["count"] for each in await groups(alice)] == [1, 1, 1, 1]
    assert len({each["group_key"] for each in await groups(alice)}) == 4


@pytest.mark.parametrize(
    ("zone", "times"),
    [
        # midnight is at 11:00 UTC
        (
            "Pacific/Auckland",
            ("2026-03-01 10:59", "2026-03-01 11:01", "2026-03-02 10:59", "2026-03-02 11:01"),
        ),
        # the clock is put back from one to midnight, at 05:00 UTC
        (
            "America/Havana",
            ("2026-11-01 03:59", "2026-11-01 04:30", "2026-11-01 05:30", "2026-11-02 05:01"),
        ),
    ],
    ids=["Auckland", "Havana"],
)
async def test_read_ones_are_grouped_by_the_day_of_the_persons_zone(
    alice: httpx.AsyncClient,
    new_notification: NewNotification,
    db: Db,
    zone: str,
    times: tuple[str, ...],
) -> None:
    db.execute("select tocsin.upsert_recipient('alice', null, null, null, %s)", (zone,))
    for at in times:
        db.execute(
            "update tocsin.notification set created_at = %s, read_at = now() where notification_id = %s",
            (f"{at}+00", new_notification(subject=THREAD)),
        )
    found = await groups(alice)
    assert [(each["count"], each["unread"]) for each in found] == [(1, 0), (2, 0), (1, 0)]
    members = await alice.get(INBOX, params={"group_key": found[1]["group_key"]})
    assert [each["created_at"][:16] for each in members.json()["results"]] == [
        at.replace(" ", "T") for at in times[2:0:-1]
    ]


async def test_filters_apply_before_grouping(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    read = new_notification(subject=THREAD)
    await alice.patch(f"{INBOX}{read}/read/")
    new_notification(subject=THREAD)
    new_notification(subject=THREAD, event_type="billing.invoice_issued")
    new_notification(subject="forum.thread:43")
    assert [each["unread"] for each in await groups(alice, subject=THREAD)] == [1, 1, 0]
    assert [each["latest"]["id"] for each in await groups(alice, read="true")] == [read]
    assert len(await groups(alice, read="false", category="forum")) == 2
    assert len(await groups(alice, event_type="billing.invoice_issued")) == 1


async def test_the_members_of_a_group_come_in_pages(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    ids = [new_notification(subject=THREAD) for _ in range(5)]
    new_notification(subject="forum.thread:43")
    single = new_notification()
    keys = {each["latest"]["id"]: each["group_key"] for each in await groups(alice)}
    seen, url, page = [], f"{INBOX}?limit=2&group_key={keys[ids[-1]]}", {}
    while url:
        page = (await alice.get(url)).json()
        seen += [each["id"] for each in page["results"]]
        url = page["next"]
    assert seen == ids[::-1]
    back = (await alice.get(page["previous"])).json()
    assert [each["id"] for each in back["results"]] == [ids[2], ids[1]]
    alone = (await alice.get(INBOX, params={"group_key": keys[single]})).json()
    assert [each["id"] for each in alone["results"]] == [single]
    assert (alone["next"], alone["previous"]) == (None, None)


async def test_pages_of_groups_stay_put_while_new_ones_arrive(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    for number in range(5):
        new_notification(subject=f"t:{number}")
    first = await listed(alice, limit=2)
    new_notification(subject="t:1")  # its group would be the first now
    new_notification(subject="t:9")
    new_notification(subject="t:4")
    second = (await alice.get(first["next"])).json()
    third = (await alice.get(second["next"])).json()
    subjects = [
        [each["latest"]["subject"] for each in page["results"]] for page in (first, second, third)
    ]
    assert subjects == [["t:4", "t:3"], ["t:2", "t:1"], ["t:0"]]
    assert second["results"][1]["count"] == 1
    assert third["next"] is None
    back = (await alice.get(third["previous"])).json()
    assert back["results"] == second["results"]
    assert (await alice.get(back["previous"])).json()["results"] == first["results"]
    assert [each["latest"]["subject"] for each in await groups(alice, limit=2)] == ["t:4", "t:9"]


async def test_reading_a_group_spares_what_came_after_the_list(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    for _ in range(3):
        new_notification(subject=THREAD)
    other = new_notification(subject="forum.thread:43")
    page = await listed(alice)
    key = page["results"][1]["group_key"]
    later = new_notification(subject=THREAD)
    response = await alice.patch(f"{INBOX}groups/{key}/read/", json={"as_of": page["as_of"]})
    assert (response.status_code, response.json()) == (200, {"marked": 3})
    assert await unread(alice) == 2
    assert [(each["latest"]["id"], each["count"], each["unread"]) for each in await groups(alice)][
        :2
    ] == [(later, 1, 1), (other, 1, 1)]
    undone = await alice.post(f"{INBOX}undo/", json={"undo": response.headers["tocsin-undo"]})
    assert undone.json() == {"undone": 3}
    assert (await alice.patch(f"{INBOX}groups/{key}/read/")).json() == {"marked": 4}
    assert (await alice.patch(f"{INBOX}groups/{key}/read/")).json() == {"marked": 0}
    assert await unread(alice) == 1


async def test_a_group_is_put_back_to_unread_and_that_is_undone(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    kept = new_notification(subject=THREAD)
    for _ in range(2):
        new_notification(subject=THREAD)
    await alice.post(f"{INBOX}mark-all-read/")
    page = await listed(alice)
    path = f"{INBOX}groups/{page['results'][0]['group_key']}/read/"
    later = new_notification(subject=THREAD)
    await alice.patch(f"{INBOX}{later}/read/")
    response = await alice.patch(path, json={"read": False, "as_of": page["as_of"]})
    assert (response.status_code, response.json()) == (200, {"marked": 3})
    assert [(each["count"], each["unread"]) for each in await groups(alice)] == [(1, 0), (3, 3)]
    assert await unread(alice) == 3
    await alice.delete(f"{INBOX}{kept}/")
    for times in (2, 0):  # not what was changed since, and only once
        undone = await alice.post(f"{INBOX}undo/", json={"undo": response.headers["tocsin-undo"]})
        assert undone.json() == {"undone": times}
    assert [(each["count"], each["unread"]) for each in await groups(alice)] == [(3, 0)]
    assert await unread(alice) == 0


async def test_a_group_that_is_unread_has_nothing_to_put_back(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    new_notification(subject=THREAD)
    (group,) = await groups(alice)
    response = await alice.patch(f"{INBOX}groups/{group['group_key']}/read/", json={"read": False})
    assert response.json() == {"marked": 0}
    assert "tocsin-undo" not in response.headers


async def test_archiving_a_group_spares_what_came_after_the_list(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    ids = [new_notification(subject=THREAD) for _ in range(3)]
    page = await listed(alice)
    key = page["results"][0]["group_key"]
    later = new_notification(subject=THREAD)
    for _ in range(2):
        response = await alice.delete(f"{INBOX}groups/{key}/", params={"as_of": page["as_of"]})
        assert (response.status_code, response.content) == (204, b"")
    assert [each["latest"]["id"] for each in await groups(alice)] == [later]
    assert await unread(alice) == 1
    assert (await alice.get(f"{INBOX}{ids[0]}/")).status_code == 200
    await alice.patch(f"{INBOX}groups/{key}/read/")
    (read,) = await groups(alice)
    await alice.delete(f"{INBOX}groups/{read['group_key']}/")
    assert await groups(alice) == []


async def test_a_group_of_one_is_read_and_archived_too(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    new_notification()
    (group,) = await groups(alice)
    path = f"{INBOX}groups/{group['group_key']}/"
    assert (await bob.patch(f"{path}read/")).status_code == 404
    assert (await bob.delete(path)).status_code == 404
    assert [(await alice.patch(f"{path}read/")).json()["marked"] for _ in range(2)] == [1, 0]
    assert await unread(alice) == 0
    assert (await bob.patch(f"{path}read/", json={"read": False})).status_code == 404
    back = [(await alice.patch(f"{path}read/", json={"read": False})) for _ in range(2)]
    assert [each.json()["marked"] for each in back] == [1, 0]
    undone = await alice.post(f"{INBOX}undo/", json={"undo": back[0].headers["tocsin-undo"]})
    assert undone.json() == {"undone": 1}
    assert (await alice.delete(path)).status_code == 204
    assert await groups(alice) == []


async def test_a_key_reaches_only_ones_own(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    new_notification(subject=THREAD)
    key = (await groups(alice))[0]["group_key"]
    assert (await bob.patch(f"{INBOX}groups/{key}/read/")).json() == {"marked": 0}
    assert (await bob.delete(f"{INBOX}groups/{key}/")).status_code == 204
    assert (await bob.get(INBOX, params={"group_key": key})).json()["results"] == []
    assert await unread(alice) == 1


async def test_a_person_turns_groups_off(
    alice: httpx.AsyncClient, new_notification: NewNotification
) -> None:
    assert (await alice.get("/api/inbox-preferences/")).json() == {"grouped": True}
    changed = await alice.patch("/api/inbox-preferences/", json={"grouped": False})
    assert (changed.status_code, changed.json()) == (200, {"grouped": False})
    assert (await alice.patch("/api/inbox-preferences/", json={})).json() == {"grouped": False}
    for _ in range(2):
        new_notification(subject=THREAD)
    assert [each["count"] for each in await groups(alice)] == [1, 1]
    await alice.patch("/api/inbox-preferences/", json={"grouped": True})
    assert [each["count"] for each in await groups(alice)] == [2]


async def test_counts_are_exact_to_a_thousand(
    alice: httpx.AsyncClient, new_notification: NewNotification, db: Db
) -> None:
    first = new_notification(subject=THREAD)
    db.execute(
        "select tocsin.notify('forum.new_reply', '{alice}', 'x', subject => %s, initiator => 'p' || i)"
        " from generate_series(1, 999) i",
        (THREAD,),
    )
    (group,) = await groups(alice)
    assert (group["count"], group["unread"], group["capped"]) == (1000, 1000, False)
    assert (group["others"], len(group["initiators"])) == (996, 3)
    new_notification(subject=THREAD)
    (group,) = await groups(alice)
    assert (group["count"], group["unread"], group["capped"]) == (1000, 1000, True)
    oldest = (await alice.get(f"{INBOX}{first}/")).json()
    assert group["oldest_at"] == oldest["created_at"]


@pytest.mark.parametrize(
    ("method", "path", "field"),
    [
        ("GET", "?grouped=true&cursor=1bzEuMQ", "cursor"),
        ("GET", "?grouped=true&group_key=1c34x", "group_key"),
        ("GET", "?group_key=1bzEuMQ", "group_key"),
        ("GET", "?group_key=1dX5mb3J1bS5tZW50aW9uflg&read=true", "group_key"),
        ("GET", "?grouped=perhaps", "grouped"),
        ("PATCH", "groups/1bzEuMQ/read/", "group_key"),
        ("DELETE", "groups/1bzEuMQ/", "group_key"),
        ("DELETE", "groups/1dX5mb3J1bS5tZW50aW9uflg/?as_of=zzz", "as_of"),
    ],
)
async def test_what_is_not_of_a_grouped_list_names_its_field_and_the_cure(
    alice: httpx.AsyncClient, method: str, path: str, field: str
) -> None:
    response = await alice.request(method, INBOX + path)
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["field"] == field
    assert response.json()["errors"][0]["message"]
