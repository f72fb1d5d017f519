"""Slack's incoming webhooks, and services that accept the same: Mattermost, Rocket.Chat."""

from __future__ import annotations

from tocsin.engine.actors.chat.service import (
    ChatReply,
    ChatRequest,
    ChatService,
    ChatText,
    SendLimit,
    fitted,
)
from tocsin.engine.actors.machinery.http_actor import HttpResponse
from tocsin.engine.model import Sent

MOST = 4000
"""Characters of a text; longer ones are hard to read, and Slack cuts them at 40,000 (`chat.postMessage`)."""

_MARKUP = 60  # characters around title and link
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_IN_LINKS = str.maketrans({"&": "&amp;", "<": "%3C", ">": "%3E", "|": "%7C"})

# The words of https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks ("Handling errors") and of
# https://api.slack.com/changelog/2016-05-17-changes-to-errors-for-incoming-webhooks. These end a target:
DEAD = frozenset(
    {"action_prohibited", "channel_is_archived", "channel_not_found", "invalid_token"}
    | {"no_active_hooks", "no_service", "no_service_id", "no_team", "team_disabled"}
    | {"posting_to_general_channel_denied", "user_not_found"}
)
# and these are about one message:
BAD = frozenset({"invalid_payload", "no_text", "too_many_attachments"})


class Slack(ChatService):
    """Posts to the channel of a webhook."""

    kind = "slack"
    example = "https://hooks.slack.com/services/T00000000/B00000000/XXXX"
    limits = (SendLimit(1, 1.0),)  # https://docs.slack.dev/apis/web-api/rate-limits

    def request(self, url: str, text: ChatText, edits: str | None) -> ChatRequest:  # noqa: ARG002
        """Returns the request; a webhook can't change what it posted."""
        link = (text.link or "").translate(_IN_LINKS)
        title, body = fitted(text, MOST - _MARKUP - len(link), len, escape)
        head = f"*<{link}|{title}>*" if link else f"*{title}*"
        shown = f"{head}\n{body}" if body else head
        return self.posted(url, url, {"text": shown, "unfurl_links": False, "unfurl_media": False})

    def classify(self, response: HttpResponse) -> ChatReply:
        """Returns what the word in the body means, or else the status."""
        if response.status == 200:
            return ChatReply(Sent())
        word = response.body[:100].decode("ascii", "replace").strip()
        if word in DEAD and 400 <= response.status < 500:
            return self.dead(word)
        return self.refused(word) if word in BAD else self.by_status(response)


def escape(text: str) -> str:
    """Returns a text in which nothing is markup, a link or a mention of a channel."""
    return text.translate(_ENTITIES)
