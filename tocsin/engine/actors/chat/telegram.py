"""Telegram's Bot API (https://core.telegram.org/bots/api)."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

from yarl import URL

from tocsin.engine.actors.chat.service import (
    ChatReply,
    ChatRequest,
    ChatService,
    ChatText,
    SendLimit,
    fitted,
    read_json,
    seconds,
    utf16,
)
from tocsin.engine.actors.machinery.http_actor import HttpResponse
from tocsin.engine.model import Sent

MOST = 4096
"""Characters of a message, counted after its HTML was read."""

# The descriptions of errors, in lower case. They are not documented as a list; these are stable in practice.
NOT_MODIFIED = "message is not modified"
EDIT_REFUSED = ("message to edit not found", "message can't be edited", "message_id_invalid")
DEAD_CHATS = ("chat not found", "group chat was upgraded to a supergroup chat", "chat_id_invalid")

_PATH = re.compile(r"(?P<bot>.*/bot\d+:[\w-]+)/sendMessage", re.ASCII)
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
        return (
            None
            if _PATH.fullmatch(place.path) and place.query.get("chat_id")
            else "url_not_of_telegram"
        )

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
        title, body = fitted(text, MOST - 1, utf16, str)
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
