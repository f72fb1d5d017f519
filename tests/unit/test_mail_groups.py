"""Several notifications about one subject in one mail: one line of a digest, and the title of a burst."""

from __future__ import annotations

import re
from typing import Any

from msgspec import structs

from tests.support.golden_mails import burst, claimed, digest, entry
from tocsin.engine.model import Claimed, Entry, Mail
from tocsin.engine.store.catalogue_file import default_catalogue

THREAD = "forum.thread:42"
TITLE_MANY = default_catalogue().event_types["forum.new_reply"].title_many
TITLE = "Bob replied to “Garden plans”"
LINE = "Bob and 2 others replied to 'Garden plans'"


def reply(person: str, *, ago: int = 1, **changes: Any) -> Entry:
    one = entry("forum.new_reply", TITLE, f"{person} wrote.", ago=ago)
    about = {"subject": THREAD, "title_many": TITLE_MANY, "about": "Garden plans"}
    named = {"initiator": person, "initiator_name": person.title()}
    return structs.replace(one, **(about | named | changes))


def mailed(person: str, **changes: Any) -> Claimed:
    about = {"subject": THREAD, "title_many": TITLE_MANY, "metadata": {"about": "Garden plans"}}
    named = {"initiator": person, "initiator_name": person.title(), "title": TITLE}
    return claimed(**(about | named | changes))


def entries_of(mail: Mail) -> list[str]:
    return re.findall(r"^[*-] (.+)$", mail.text, re.MULTILINE)


def test_a_digest_shows_unread_ones_about_one_subject_as_one() -> None:
    mail = digest(
        reply("bob", ago=1),
        reply("carol", ago=2),
        reply("bob", ago=3),
        reply("dave", ago=4),
        entry("forum.mention", "Carol mentioned you", ago=5),
    )
    assert mail.subject == f"{LINE} and 1 more"
    assert "5 unread notifications" in mail.text
    assert entries_of(mail) == [LINE, "Carol mentioned you"]
    assert "bob wrote." in mail.text
    assert "carol wrote." not in mail.text
    assert "Forum: 5" in mail.html


def test_what_was_read_has_no_subject_or_is_of_another_type_stays_alone() -> None:
    mail = digest(
        reply("bob", ago=1),
        reply("carol", ago=2, read=True, title="Carol replied"),
        reply("dave", ago=3, subject=None, title="Dave replied"),
        reply("erin", ago=4, event_type="forum.mention", title="Erin mentioned you"),
        reply("frank", ago=5, subject="forum.thread:43", title="Frank replied"),
    )
    assert len(entries_of(mail)) == 5
    assert mail.subject == f"{TITLE} and 3 more"


def test_a_digest_with_one_subject_alone_has_it_as_its_subject() -> None:
    mail = digest(reply("bob", ago=1), reply("carol", ago=2), reply("dave", ago=3))
    assert mail.subject == LINE


def test_what_a_digest_does_not_show_is_counted_in_notifications() -> None:
    threads = [
        reply(person, ago=2 * number + part, subject=f"forum.thread:{number}")
        for number in range(20)
        for part, person in enumerate(("bob", "carol"))
    ]
    mail = digest(*threads)
    assert "40 unread notifications" in mail.text
    assert "and 10 more" in mail.text


def test_the_subject_of_a_burst_is_the_line_of_its_group() -> None:
    mail = burst(mailed("dave"), mailed("carol"), mailed("bob"))
    assert mail.subject == LINE
    assert mail.text.startswith("3 new notifications in Acme")
    assert len(entries_of(mail)) == 3


def test_a_burst_keeps_a_group_together_and_counts_the_others() -> None:
    other = claimed(title="The bulletin is out", event_type="bulletin.new_chapter")
    mail = burst(mailed("dave"), mailed("carol"), other, mailed("bob"))
    assert mail.subject == f"{LINE} and 1 more"
    assert [line.partition(" (")[0] for line in entries_of(mail)] == [
        TITLE,
        TITLE,
        TITLE,
        "The bulletin is out",
    ]


def test_the_line_is_in_the_language_of_the_person() -> None:
    mail = digest(reply("bob", ago=1), reply("carol", ago=2), locale="de")
    assert mail.subject.startswith("Bob und eine weitere Person haben auf „Garden plans“")


def test_replies_of_one_person_alone_have_no_line_and_stay_as_they_are() -> None:
    mail = digest(reply("bob", ago=1), reply("bob", ago=2))
    assert entries_of(mail) == [TITLE, TITLE]
    assert mail.subject == f"{TITLE} and 1 more"
    assert burst(mailed("bob"), mailed("bob")).subject == f"{TITLE} and 1 more"
