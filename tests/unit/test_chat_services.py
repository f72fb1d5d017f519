"""How each kind of chat wants a message, and what its responses mean, by the documents that the modules name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tocsin.engine.actors.chat_services import SERVICES, ChatReply, ChatRequest, ChatText, utf16
from tocsin.engine.actors.machinery.http_actor import HttpResponse
from tocsin.engine.model import Deferred, Rejected, Sent
from tocsin.testing.chats import KINDS

URLS = {
    "slack": "https://hooks.slack.com/services/T0/B0/secret",
    "discord": "https://discord.com/api/webhooks/100/secret",
    "teams": "https://prod-00.westeurope.logic.azure.com/workflows/1/triggers/manual/paths/invoke?sig=secret",
    "telegram": "https://api.telegram.org/bot100:secret/sendMessage?chat_id=-100123",
}
LINK = "https://app.example.com/forums/7?a=1&b=(2)"
NASTY = "a & b <!channel> @everyone *b* _i_ ~s~ `c` [x](https://evil.example) > # - |"


def request(kind: str, text: ChatText, edits: str | None = None) -> ChatRequest:
    return SERVICES[kind].request(URLS[kind], text, edits)


def shown(kind: str, text: ChatText, edits: str | None = None) -> str:
    """Returns the text as it is sent."""
    body: Any = json.loads(request(kind, text, edits).body)
    if kind == "teams":
        blocks = body["attachments"][0]["content"]["body"]
        return "\n".join(each["text"] for each in blocks)
    return str(body["content" if kind == "discord" else "text"])


def classified(
    kind: str, status: int, body: str = "", wait: float | None = None, edits: str | None = None
) -> ChatReply:
    asked = request(kind, ChatText("x", ""), edits)
    return SERVICES[kind].classify(HttpResponse(asked, status, {}, body.encode(), wait))


# The message.


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (
            "slack",
            "*<https://app.example.com/forums/7?a=1&amp;b=(2)|New &lt;reply&gt;>*\nCarol wrote *this*",
        ),
        ("discord", f"**[New \\<reply\\>](<{LINK}>)**\nCarol wrote \\*this\\*"),
        (
            "teams",
            "[New \\<reply\\>](https://app.example.com/forums/7?a=1&b=%282%29)\nCarol wrote \\*this\\*",
        ),
        (
            "telegram",
            f'<b><a href="{LINK.replace("&", "&amp;")}">New &lt;reply&gt;</a></b>\nCarol wrote *this*',
        ),
    ],
)
def test_the_title_leads_to_the_thing_and_the_text_is_escaped(kind: str, text: str) -> None:
    assert shown(kind, ChatText("New <reply>", "Carol wrote *this*", LINK)) == text


def test_nobody_is_mentioned_and_nothing_is_markup_that_the_app_did_not_mean() -> None:
    text = ChatText(NASTY, NASTY)
    assert "<!channel>" not in shown("slack", text)
    discord = json.loads(request("discord", text).body)
    assert discord["allowed_mentions"] == {"parse": []}
    assert "\\*b\\*" in discord["content"]
    assert "\\[x\\]\\(https://evil.example\\)" in discord["content"]
    assert "\\[x\\]\\(https://evil.example\\)" in shown("teams", text)
    assert "&lt;!channel&gt;" in shown("telegram", text)
    assert json.loads(request("telegram", text).body)["parse_mode"] == "HTML"


@pytest.mark.parametrize("kind", ["discord", "teams"])
def test_an_address_in_a_text_can_be_clicked(kind: str) -> None:
    address = "https://app.example.com/a_b_c?d=e-f"
    assert f"see {address}\\)" in shown(kind, ChatText("x", f"(see {address})"))


@pytest.mark.parametrize(
    ("kind", "most", "size"),
    [
        ("slack", 4000, len),
        ("discord", 2000, utf16),
        ("telegram", 4096 + len("<b></b>"), utf16),
    ],
)
@pytest.mark.parametrize("letter", ["a", "👨‍👩‍👧‍👦", "*", "ä"])
def test_a_long_text_is_cut_between_two_characters(
    kind: str, most: int, size: Any, letter: str
) -> None:
    text = shown(
        kind, ChatText(letter * 40_000, letter * 40_000, LINK if kind == "slack" else None)
    )
    assert most * 0.9 < size(text) <= most
    assert text.endswith("…")
    if len(letter) > 1:
        assert text.rstrip("…").endswith(letter)


@pytest.mark.parametrize("letter", ["a", "👨‍👩‍👧‍👦", "*", '"', "ä"])
def test_a_card_of_teams_is_at_most_28_kb(letter: str) -> None:
    body = request("teams", ChatText(letter * 40_000, letter * 40_000, LINK)).body
    assert 25_000 < len(body) <= 28_000


def test_a_card_of_teams_is_an_adaptive_card() -> None:
    body = json.loads(request("teams", ChatText("Title", "Body")).body)
    (attachment,) = body["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert [each["type"] for each in card["body"]] == ["TextBlock", "TextBlock"]
    assert all(each["wrap"] for each in card["body"])


# Where it goes.


def test_a_message_is_posted_to_the_url_and_changed_by_the_providers_id() -> None:
    text = ChatText("x", "")
    assert request("slack", text, "1").url == URLS["slack"]
    assert request("discord", text).url == f"{URLS['discord']}?wait=true"
    changed = request("discord", text, "77")
    assert (changed.method, changed.url) == ("PATCH", f"{URLS['discord']}/messages/77")
    telegram = request("telegram", text)
    assert telegram.url == "https://api.telegram.org/bot100:secret/sendMessage"
    assert json.loads(telegram.body)["chat_id"] == "-100123"
    changed = request("telegram", text, "77")
    assert changed.url == "https://api.telegram.org/bot100:secret/editMessageText"
    assert json.loads(changed.body)["message_id"] == 77


def test_a_thread_of_discord_and_a_topic_of_telegram_are_kept() -> None:
    text = ChatText("x", "")
    discord = SERVICES["discord"].request(f"{URLS['discord']}?thread_id=5", text, None)
    assert discord.url == f"{URLS['discord']}?thread_id=5&wait=true"
    changed = SERVICES["discord"].request(f"{URLS['discord']}?thread_id=5", text, "77")
    assert changed.url == f"{URLS['discord']}/messages/77?thread_id=5"
    telegram = SERVICES["telegram"].request(f"{URLS['telegram']}&message_thread_id=9", text, None)
    assert json.loads(telegram.body)["message_thread_id"] == "9"


@pytest.mark.parametrize(
    ("kind", "url", "fault"),
    [
        *((kind, url, None) for kind, url in URLS.items()),
        ("slack", "https://mattermost.example.com/hooks/abc", None),
        ("discord", "https://discord.com/api/v10/webhooks/100/secret?thread_id=5", None),
        ("discord", "https://discord.com/channels/1/2", "url_not_of_discord"),
        ("discord", f"{URLS['discord']}/slack", "url_not_of_discord"),
        ("telegram", "https://api.telegram.org/bot100:secret/sendMessage", "url_not_of_telegram"),
        (
            "telegram",
            "https://api.telegram.org/bot100:secret/getMe?chat_id=1",
            "url_not_of_telegram",
        ),
        ("telegram", "https://t.me/somebody", "url_not_of_telegram"),
    ],
)
def test_urls_of_each_kind(kind: str, url: str, fault: str | None) -> None:
    assert SERVICES[kind].url_fault(url) == fault


# What a response means.

ENDS = [
    *(("slack", 404, word) for word in ("no_service", "no_team", "channel_not_found")),
    ("slack", 403, "action_prohibited"),
    ("slack", 403, "invalid_token"),
    ("slack", 410, "channel_is_archived"),
    ("discord", 404, '{"code": 10015}'),
    ("discord", 404, '{"code": 10003}'),
    ("discord", 401, '{"code": 50027}'),
    ("teams", 404, '{"error": {"code": "WorkflowNotFound"}}'),
    ("teams", 410, ""),
    ("telegram", 403, '{"description": "Forbidden: bot was blocked by the user"}'),
    ("telegram", 403, '{"description": "Forbidden: bot was kicked from the group chat"}'),
    ("telegram", 400, '{"description": "Bad Request: chat not found"}'),
]
REFUSALS = [
    ("slack", 400, "invalid_payload", "slack_invalid_payload"),
    ("slack", 400, "something new", "slack_400"),
    ("slack", 404, "<html>no_service</html>", "slack_404"),
    ("slack", 302, "", "slack_302"),
    ("discord", 400, '{"code": 50035}', "discord_400"),
    ("discord", 404, "<html>", "discord_404"),
    ("discord", 403, "[]", "discord_403"),
    ("teams", 404, "", "teams_404"),
    ("teams", 413, "", "teams_413"),
    ("teams", 400, '{"error": "text"}', "teams_400"),
    ("telegram", 400, '{"description": "Bad Request: message is too long"}', "telegram_400"),
    ("telegram", 403, "", "telegram_403"),
    ("telegram", 404, '{"description": "Not Found"}', "telegram_404"),
]


@pytest.mark.parametrize(("kind", "status", "body"), ENDS)
def test_what_ends_a_target(kind: str, status: int, body: str) -> None:
    outcome = classified(kind, status, body).outcome
    assert isinstance(outcome, Rejected)
    assert outcome.address_dead


@pytest.mark.parametrize(("kind", "status", "body", "reason"), REFUSALS)
def test_what_refuses_one_message_and_leaves_the_target(
    kind: str, status: int, body: str, reason: str
) -> None:
    assert classified(kind, status, body).outcome == Rejected(reason)


@pytest.mark.parametrize("kind", KINDS)
def test_what_every_kind_has(kind: str) -> None:
    assert classified(kind, 503, "", 7.0).outcome == Deferred(f"{kind}_503", 7.0)
    held = classified(kind, 429, "{}" if kind != "discord" else '{"global": false}', 12.0)
    assert (held.outcome, held.hold) == (Deferred(f"{kind}_429", 12.0), 12.0)
    assert classified(kind, 429).hold == 30.0


@pytest.mark.parametrize(
    ("kind", "body", "hold", "everywhere"),
    [
        ("discord", '{"retry_after": 0.7, "global": false}', 0.7, False),
        ("discord", '{"retry_after": 3, "global": true}', 3.0, True),
        ("discord", "<html>cloudflare</html>", 12.0, True),
        ("discord", '{"retry_after": "soon"}', 12.0, False),
        ("discord", '{"retry_after": 1e300}', 86_400.0, False),
        ("telegram", '{"parameters": {"retry_after": 35}}', 35.0, False),
        ("telegram", '{"parameters": []}', 12.0, False),
    ],
)
def test_how_long_a_provider_wants_nothing(
    kind: str, body: str, hold: float, everywhere: bool
) -> None:
    reply = classified(kind, 429, body, 12.0)
    assert (reply.hold, reply.everywhere) == (hold, everywhere)


@pytest.mark.parametrize(
    ("kind", "status", "body", "sent"),
    [
        ("slack", 200, "ok", Sent()),
        ("discord", 200, '{"id": "123"}', Sent("123")),
        ("discord", 204, "", Sent()),
        ("teams", 202, "", Sent()),
        ("telegram", 200, '{"ok": true, "result": {"message_id": 9}}', Sent("9")),
        ("telegram", 200, '{"ok": true, "result": true}', Sent()),
    ],
)
def test_what_was_accepted_has_the_id_by_which_it_is_changed(
    kind: str, status: int, body: str, sent: Sent
) -> None:
    assert classified(kind, status, body).outcome == sent


def test_a_change_that_changes_nothing_is_done_and_one_of_a_deleted_message_is_not() -> None:
    same = '{"description": "Bad Request: message is not modified: specified new"}'
    assert classified("telegram", 400, same, edits="9").outcome == Sent("9")
    for kind, status, body in (
        ("telegram", 400, '{"description": "Bad Request: message to edit not found"}'),
        ("telegram", 400, '{"description": "Bad Request: message can\'t be edited"}'),
        ("discord", 404, '{"code": 10008}'),
    ):
        assert classified(kind, status, body, edits="9").gone
