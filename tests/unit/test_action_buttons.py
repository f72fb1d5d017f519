"""Buttons in mails and pushes: where they lead, what phones get of them, and how much room they leave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import structs

from tests.support.golden_mails import LINKS, NOW, SENDER, claimed, digest, entry, one
from tocsin.engine.actors import apns
from tocsin.engine.actors.apns_connection import MAX_PAYLOAD
from tocsin.engine.mail.context import Rendering
from tocsin.engine.mail.precompiled import PrecompiledMails
from tocsin.engine.mail.render_push import render_push
from tocsin.engine.mail.render_single import render_mail
from tocsin.engine.model import Mail, Push

ACTIONS = [
    {"key": "accept", "label": "Accept", "style": "primary"},
    {"key": "decline", "label": "Decline", "url": "/why"},
]


def one_with(**changes: Any) -> Mail:
    return one(claimed(**changes))


def test_a_push_carries_what_is_needed_to_press_a_button() -> None:
    push = render_push(claimed(actions=ACTIONS, action_url="/x")).content
    assert isinstance(push, Push)
    assert push.category == "tocsin:accept,decline"
    assert json.loads(push.data["actions"]) == [
        {"key": "accept", "label": "Accept"},
        {"key": "decline", "label": "Decline"},
    ]
    assert push.data["actions_path"] == "/api/notifications/42/actions/"
    assert push.data["notification_id"] == "42"
    plain = render_push(claimed()).content
    assert isinstance(plain, Push)
    assert plain.category is None
    assert "actions" not in plain.data


@pytest.mark.parametrize("letter", ["x", '"', "語", "😀"])
def test_the_largest_buttons_and_data_leave_room_for_the_text(letter: str) -> None:
    actions = [{"key": f"{number}" * 40, "label": letter * 40} for number in range(3)]
    push = render_push(
        claimed(
            actions=actions,
            data={"x": "y" * 1980},
            action_url="/" + "z" * 1990,
            title=letter * 200,
            body=letter * 5000,
            notification_id=2**63 - 1,
        )
    ).content
    assert isinstance(push, Push)
    payload = apns.draft(push)
    assert len(payload) <= MAX_PAYLOAD
    assert len(json.loads(payload)["aps"]["alert"]["title"]) > 20
    sent = json.loads(json.loads(payload)["actions"])
    assert [each["label"] for each in sent] == [letter * 40] * 3


def test_a_mail_has_a_button_for_each_action_that_leads_to_a_page() -> None:
    mail = one_with(actions=ACTIONS)
    page = LINKS.choose(42, "alice", NOW)
    for action in ACTIONS:
        link = f"{page}?key={action['key']}"
        assert f'href="{link}"' in mail.html
        assert f"\n{action['label']}: {link}\n" in mail.text
    assert LINKS.open(42, "alice", NOW) in mail.html


def test_an_address_without_an_account_gets_no_buttons() -> None:
    mail = one_with(actions=ACTIONS, recipient_id=None, invited="zoe@example.com")
    assert "/a/" not in mail.html + mail.text
    assert "Decline" not in mail.html + mail.text


def test_long_labels_stand_below_each_other() -> None:
    long = [{"key": f"k{number}", "label": "A rather long label"} for number in range(3)]
    assert one_with(actions=long).html.count('class="button-gap" height') == 2
    assert one_with(actions=ACTIONS).html.count('class="button-gap" width') == 1


def test_a_mail_from_precompiled_templates_has_the_links_of_its_own_person() -> None:
    precompiled = PrecompiledMails()
    by = Rendering(LINKS, SENDER, NOW)
    others = [ACTIONS, [{"key": "yes", "label": "Yes"}], None]
    for number in range(12):
        one_of_them = claimed(
            actions=others[number % 3], notification_id=number + 1, recipient_id=f"p{number}"
        )
        found = render_mail(one_of_them, by, precompiled).content
        assert isinstance(found, Mail)
        assert found.html == one(one_of_them).html
        assert found.text == one(one_of_them).text
        assert (found.filled is not None) == (number >= 6)


def test_a_digest_links_to_the_actions_of_what_is_unread() -> None:
    def with_actions(**named: Any) -> Iterator[str]:
        asked = structs.replace(entry("event.invited", "Come?", **named), actions=ACTIONS)
        mail = digest(asked)
        return (part for part in (mail.html, mail.text))

    page = LINKS.choose(101, "alice", NOW)
    for part in with_actions():
        assert f"{page}?key=accept" in part
    for part in with_actions(read=True):
        assert "/a/" not in part
