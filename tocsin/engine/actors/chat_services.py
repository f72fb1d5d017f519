"""The services of chats, each with its own format, limits and errors: Slack, Discord, Microsoft Teams, Telegram."""

from __future__ import annotations

import html
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
from msgspec import Struct
from yarl import URL

from tocsin.engine.actors.machinery.http_actor import HttpRequest, HttpResponse
from tocsin.engine.model import Deferred, Outcome, Rejected, Sent
from tocsin.engine.text import clip, json_size

TITLE = 256
"""A title is cut to this length, as the service counts."""

DEFAULT_HOLD = 30.0
"""Seconds to wait after a 429 that names no time."""

_JSON = {"Content-Type": "application/json"}


class ChatText(Struct, frozen=True):
    """What people read; `link` is where a click on the title leads."""

    title: str
    body: str
    link: str | None = None


class ChatRequest(HttpRequest, frozen=True):
    """One request to a target of a `kind`; `edits` is the provider's id of the message that it changes."""

    kind: str = ""
    target: str = ""  # the target's URL, by which its requests are paced
    edits: str | None = None


class ChatReply(Struct, frozen=True):
    """What a response means. `hold`: nothing is sent to the target for so many seconds, or `everywhere` to its service.

    `gone`: the message to edit is not there any more, so a new one is sent.
    """

    outcome: Outcome
    hold: float | None = None
    everywhere: bool = False
    gone: bool = False


class SendLimit(Struct, frozen=True):
    """At most so many messages in so many seconds."""

    most: int
    seconds: float


class ChatService(ABC):
    """One kind of targets. `limits` are those of one target, `shared_limit` that of all targets of one account."""

    kind: ClassVar[str]
    example: ClassVar[str]  # of a URL
    limits: ClassVar[Sequence[SendLimit]]
    shared_limit: ClassVar[SendLimit | None] = None

    def url_fault(self, url: str) -> str | None:  # noqa: ARG002 - for subclasses
        """Returns why a URL is not one of this service; None if it may be."""
        return None

    def limits_of(self, url: str) -> Sequence[SendLimit]:  # noqa: ARG002 - for subclasses
        """Returns the limits of one target."""
        return self.limits

    def account(self, url: str) -> str:  # noqa: ARG002 - for subclasses
        """Returns what the targets of one account have in common."""
        return self.kind

    @abstractmethod
    def request(self, url: str, text: ChatText, edits: str | None) -> ChatRequest:
        """Returns the request that posts a text, or changes the message `edits`."""

    @abstractmethod
    def classify(self, response: HttpResponse) -> ChatReply:
        """Returns what a response means for the message and its target."""

    def posted(
        self, url: str, target: str, body: Any, *, method: str = "POST", edits: str | None = None
    ) -> ChatRequest:
        """Returns a request with a JSON body."""
        return ChatRequest(
            url,
            msgspec.json.encode(body),
            _JSON,
            method,
            kind=self.kind,
            target=target,
            edits=edits,
        )

    def dead(self, reason: str) -> ChatReply:
        """Returns that the target does not exist any more."""
        return ChatReply(Rejected(f"{self.kind}_{reason}", address_dead=True))

    def refused(self, reason: str | int) -> ChatReply:
        """Returns that this message can't be sent, whatever is done."""
        return ChatReply(Rejected(f"{self.kind}_{reason}"))

    def later(self, reason: str | int, wait: float | None = None) -> ChatReply:
        """Returns that it is tried again."""
        return ChatReply(Deferred(f"{self.kind}_{reason}", wait))

    def too_many(self, wait: float | None, *, everywhere: bool = False) -> ChatReply:
        """Returns that the target, or the service, wants nothing for some seconds."""
        hold = DEFAULT_HOLD if wait is None else wait
        return ChatReply(Deferred(f"{self.kind}_429", hold), hold, everywhere)

    def by_status(self, response: HttpResponse) -> ChatReply:
        """Returns what a response means that the service does not document: no target is disabled by it."""
        if response.status == 429:
            return self.too_many(response.retry_after)
        if response.status >= 500 or response.status in {401, 408}:
            return self.later(response.status, response.retry_after)
        return self.refused(response.status)


def read_json(body: bytes) -> dict[str, Any]:
    """Returns the object of a response; an empty one if it is none."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def seconds(value: object) -> float | None:
    """Returns a number of seconds of a response, a day at most; None if it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return min(max(0.0, float(value)), 86_400.0)


def utf16(text: str) -> int:
    """Returns the length in UTF-16 code units, as Discord and Telegram count."""
    return len(text) + sum(character > "\uffff" for character in text)


def fitted(
    text: ChatText, most: int, size: Callable[[str], int], escape: Callable[[str], str]
) -> tuple[str, str]:
    """Returns title and body, escaped and cut so that both take at most `most` together, as `size` counts them."""

    def escaped_size(part: str) -> int:
        return size(escape(part))

    title = clip(text.title, min(TITLE, most), escaped_size)
    body = clip(text.body, most - escaped_size(title), escaped_size)
    return escape(title), escape(body)


# Slack's incoming webhooks, and services that accept the same: Mattermost, Rocket.Chat.

SLACK_MOST = 4000
"""Characters of a text; longer ones are hard to read, and Slack cuts them at 40,000 (`chat.postMessage`)."""

_SLACK_MARKUP = 60  # characters around title and link
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_IN_LINKS = str.maketrans({"&": "&amp;", "<": "%3C", ">": "%3E", "|": "%7C"})

# The words of https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks ("Handling errors") and of
# https://api.slack.com/changelog/2016-05-17-changes-to-errors-for-incoming-webhooks. These end a target:
_SLACK_DEAD = frozenset(
    {"action_prohibited", "channel_is_archived", "channel_not_found", "invalid_token"}
    | {"no_active_hooks", "no_service", "no_service_id", "no_team", "team_disabled"}
    | {"posting_to_general_channel_denied", "user_not_found"}
)
# and these are about one message:
_SLACK_BAD = frozenset({"invalid_payload", "no_text", "too_many_attachments"})


class Slack(ChatService):
    """Posts to the channel of a webhook."""

    kind = "slack"
    example = "https://hooks.slack.com/services/T00000000/B00000000/XXXX"
    limits = (SendLimit(1, 1.0),)  # https://docs.slack.dev/apis/web-api/rate-limits

    def request(self, url: str, text: ChatText, edits: str | None) -> ChatRequest:  # noqa: ARG002
        """Returns the request; a webhook can't change what it posted."""
        link = (text.link or "").translate(_IN_LINKS)
        title, body = fitted(text, SLACK_MOST - _SLACK_MARKUP - len(link), len, escape_slack)
        head = f"*<{link}|{title}>*" if link else f"*{title}*"
        shown = f"{head}\n{body}" if body else head
        return self.posted(url, url, {"text": shown, "unfurl_links": False, "unfurl_media": False})

    def classify(self, response: HttpResponse) -> ChatReply:
        """Returns what the word in the body means, or else the status."""
        if response.status == 200:
            return ChatReply(Sent())
        word = response.body[:100].decode("ascii", "replace").strip()
        if word in _SLACK_DEAD and 400 <= response.status < 500:
            return self.dead(word)
        return self.refused(word) if word in _SLACK_BAD else self.by_status(response)


def escape_slack(text: str) -> str:
    """Returns a text in which nothing is markup, a link or a mention of a channel."""
    return text.translate(_ENTITIES)


# Discord's webhooks (https://docs.discord.com/developers/resources/webhook).

DISCORD_MOST = 2000
"""Characters of a message."""

# https://docs.discord.com/developers/topics/opcodes-and-status-codes
UNKNOWN_CHANNEL, UNKNOWN_MESSAGE, UNKNOWN_WEBHOOK, INVALID_TOKEN = 10003, 10008, 10015, 50027
_DISCORD_DEAD = {UNKNOWN_CHANNEL: "10003", UNKNOWN_WEBHOOK: "10015", INVALID_TOKEN: "50027"}

_DISCORD_MARKUP = 40
_SUPPRESS_EMBEDS = 4
_DISCORD_PATH = re.compile(r"/api(?:/v\d+)?/webhooks/\d+/[\w-]+", re.ASCII)
_SPECIAL = re.compile(r"https?://[^\s<>()\[\]*~`|\\]+|[\\*_~`|>#\[\]()<-]")


class Discord(ChatService):
    """Posts to the channel of a webhook, or a thread of it (`?thread_id=`)."""

    kind = "discord"
    example = "https://discord.com/api/webhooks/123456789012345678/abcd"
    # what is in use; the documents ask to follow the headers instead (.../topics/rate-limits)
    limits = (SendLimit(5, 2.0), SendLimit(30, 60.0))

    def url_fault(self, url: str) -> str | None:
        """Returns a fault where the path is not that of a webhook."""
        return None if _DISCORD_PATH.fullmatch(URL(url).path) else "url_not_of_discord"

    def request(self, url: str, text: ChatText, edits: str | None) -> ChatRequest:
        """Returns the request; its response has the message's id, by which it is changed later."""
        link = (text.link or "").replace(">", "%3E").replace("<", "%3C")
        title, body = fitted(
            text, DISCORD_MOST - _DISCORD_MARKUP - len(link), utf16, escape_discord
        )
        head = f"**[{title}](<{link}>)**" if link else f"**{title}**"
        message = {
            "content": f"{head}\n{body}" if body else head,
            "allowed_mentions": {"parse": []},
            "flags": _SUPPRESS_EMBEDS,
        }
        if edits is None:
            return self.posted(str(URL(url).update_query(wait="true")), url, message)
        place = URL(url)
        place = place.with_path(f"{place.path}/messages/{edits}", keep_query=True)
        return self.posted(str(place), url, message, method="PATCH", edits=edits)

    def classify(self, response: HttpResponse) -> ChatReply:
        """Returns what the code in the body means, or else the status."""
        found = read_json(response.body)
        if response.status in {200, 204}:
            return ChatReply(Sent(str(found["id"]) if "id" in found else None))
        code = found.get("code")
        if response.status == 404 and code == UNKNOWN_MESSAGE:
            return ChatReply(self.refused(code).outcome, gone=True)
        if isinstance(code, int) and response.status in {401, 403, 404} and code in _DISCORD_DEAD:
            return self.dead(_DISCORD_DEAD[code])
        if response.status == 429:
            wait = seconds(found.get("retry_after"))
            # a response without JSON is of the network before Discord, which blocks this service's address
            everywhere = found.get("global") is True or not found
            return self.too_many(
                response.retry_after if wait is None else wait, everywhere=everywhere
            )
        return self.by_status(response)


def escape_discord(text: str) -> str:
    """Returns a text in which nothing is Markdown; addresses stay as they are, and can be clicked."""
    return _SPECIAL.sub(lambda found: found[0] if len(found[0]) > 1 else f"\\{found[0]}", text)


# Microsoft Teams, by a workflow with the trigger "When a Teams webhook request is received".
# https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using, and
# …/how-to/add-incoming-webhook for the 28 kB and the four requests a second.

TEAMS_MOST = 28_000
"""Bytes of a message."""

_TEAMS_DEAD = frozenset({"WorkflowNotFound"})
"""Codes of errors that end a target (Azure Logic Apps, on which workflows run)."""

_CARD = 700  # bytes around the texts


class Teams(ChatService):
    """Posts an Adaptive Card to the channel or chat of a workflow."""

    kind = "teams"
    example = (
        "https://prod-00.westeurope.logic.azure.com/workflows/…/triggers/manual/paths/invoke?…"
    )
    limits = (SendLimit(4, 1.0),)

    def request(self, url: str, text: ChatText, edits: str | None) -> ChatRequest:  # noqa: ARG002
        """Returns the request; a workflow can't change what it posted."""
        link = (text.link or "").replace("(", "%28").replace(")", "%29")
        title, body = fitted(text, TEAMS_MOST - _CARD - len(link.encode()), json_size, escape_teams)
        blocks = [{"text": f"[{title}]({link})" if link else title, "weight": "Bolder"}]
        if body:
            blocks.append({"text": body})
        card = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": [{"type": "TextBlock", "wrap": True, **each} for each in blocks],
        }
        kind = "application/vnd.microsoft.card.adaptive"
        attachment = {"contentType": kind, "contentUrl": None, "content": card}
        return self.posted(url, url, {"type": "message", "attachments": [attachment]})

    def classify(self, response: HttpResponse) -> ChatReply:
        """Returns what the status means; 202 is all that a workflow returns of a message that it took."""
        if response.status in {200, 202}:
            return ChatReply(Sent())
        error = read_json(response.body).get("error")
        code = error.get("code") if isinstance(error, dict) else None
        if response.status == 404 and code in _TEAMS_DEAD:
            return self.dead(str(code))
        if response.status == 410:
            return self.dead("410")
        return self.by_status(response)


def escape_teams(text: str) -> str:
    """Returns the same with lines that stay apart."""
    return escape_discord(text).replace("\n", "\n\n")


# Telegram's Bot API (https://core.telegram.org/bots/api).

TELEGRAM_MOST = 4096
"""Characters of a message, counted after its HTML was read."""

# The descriptions of errors, in lower case. They are not documented as a list; these are stable in practice.
NOT_MODIFIED = "message is not modified"
EDIT_REFUSED = ("message to edit not found", "message can't be edited", "message_id_invalid")
DEAD_CHATS = ("chat not found", "group chat was upgraded to a supergroup chat", "chat_id_invalid")

_TELEGRAM_PATH = re.compile(r"(?P<bot>.*/bot\d+:[\w-]+)/sendMessage", re.ASCII)
_ONE_PER_SECOND = SendLimit(1, 1.0)


class Telegram(ChatService):
    """Posts as a bot to a chat: a person, a group or a channel."""

    kind = "telegram"
    example = "https://api.telegram.org/bot123456:ABC/sendMessage?chat_id=-1001234567890"
    # https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this
    limits = (_ONE_PER_SECOND,)
    shared_limit = SendLimit(30, 1.0)

    def url_fault(self, url: str) -> str | None:
        """Returns a fault where the path is not `/bot<token>/sendMessage`, or no chat is given."""
        place = URL(url)
        known = _TELEGRAM_PATH.fullmatch(place.path) and place.query.get("chat_id")
        return None if known else "url_not_of_telegram"

    def limits_of(self, url: str) -> Sequence[SendLimit]:
        """Returns those of a person's chat, or of a group."""
        chat_id = URL(url).query.get("chat_id", "")
        group = chat_id.startswith(("-", "@"))
        return (_ONE_PER_SECOND, SendLimit(20, 60.0)) if group else self.limits

    def account(self, url: str) -> str:
        """Returns the bot."""
        return URL(url).path

    def request(self, url: str, text: ChatText, edits: str | None) -> ChatRequest:
        """Returns the request; its response has the message's id, by which it is changed later."""
        # what is in angle brackets is not counted, and an entity counts as one
        title, body = fitted(text, TELEGRAM_MOST - 1, utf16, str)
        title, body = html.escape(title), html.escape(body)
        if text.link:
            title = f'<a href="{html.escape(text.link)}">{title}</a>'
        place = URL(url)
        message: dict[str, Any] = {
            "chat_id": place.query.get("chat_id"),
            "text": f"<b>{title}</b>\n{body}" if body else f"<b>{title}</b>",
            "parse_mode": "HTML",
            "link_preview_options": {"is_disabled": True},
        }
        if edits is None:
            thread_id = place.query.get("message_thread_id")
            if thread_id:
                message["message_thread_id"] = thread_id
            return self.posted(str(place.with_query(None)), url, message)
        place = place.with_name("editMessageText")
        message["message_id"] = int(edits) if edits.isdecimal() else edits
        return self.posted(str(place.with_query(None)), url, message, edits=edits)

    def classify(self, response: HttpResponse) -> ChatReply:
        """Returns what the description in the body means, or else the status."""
        found = read_json(response.body)
        if response.status == 200 and found.get("ok") is True:
            result = found.get("result")
            id_ = result.get("message_id") if isinstance(result, dict) else None
            return ChatReply(Sent(None if id_ is None else str(id_)))
        words = str(found.get("description", "")).lower()
        match response.status:
            case 400 if NOT_MODIFIED in words:
                request = response.request
                return ChatReply(Sent(request.edits if isinstance(request, ChatRequest) else None))
            case 400 if any(each in words for each in EDIT_REFUSED):
                return ChatReply(self.refused(400).outcome, gone=True)
            case 400 if any(each in words for each in DEAD_CHATS):
                return self.dead("chat_not_found")
            case 403 if found:
                return self.dead("403")
            case 429:
                parameters = found.get("parameters")
                wait = parameters.get("retry_after") if isinstance(parameters, dict) else None
                return self.too_many(response.retry_after if wait is None else seconds(wait))
            case 200:  # not what the API returns
                return self.later("no_json")
        return self.by_status(response)


SERVICES: Mapping[str, ChatService] = {
    each.kind: each for each in (Slack(), Discord(), Teams(), Telegram())
}
