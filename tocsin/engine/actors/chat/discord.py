"""Discord's webhooks (https://docs.discord.com/developers/resources/webhook)."""

from __future__ import annotations

import re

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

MOST = 2000
"""Characters of a message."""

# https://docs.discord.com/developers/topics/opcodes-and-status-codes
UNKNOWN_CHANNEL, UNKNOWN_MESSAGE, UNKNOWN_WEBHOOK, INVALID_TOKEN = 10003, 10008, 10015, 50027
DEAD = {UNKNOWN_CHANNEL: "10003", UNKNOWN_WEBHOOK: "10015", INVALID_TOKEN: "50027"}

_MARKUP = 40
_SUPPRESS_EMBEDS = 4
_PATH = re.compile(r"/api(?:/v\d+)?/webhooks/\d+/[\w-]+", re.ASCII)
_SPECIAL = re.compile(r"https?://[^\s<>()\[\]*~`|\\]+|[\\*_~`|>#\[\]()<-]")


class Discord(ChatService):
    """Posts to the channel of a webhook, or a thread of it (`?thread_id=`)."""

    kind = "discord"
    example = "https://discord.com/api/webhooks/123456789012345678/abcd"
    # what is in use; the documents ask to follow the headers instead (.../topics/rate-limits)
    limits = (SendLimit(5, 2.0), SendLimit(30, 60.0))

    def url_fault(self, url: str) -> str | None:
        """Returns a fault where the path is not that of a webhook."""
        return None if _PATH.fullmatch(URL(url).path) else "url_not_of_discord"

    def request(self, url: str, text: ChatText, edits: str | None) -> ChatRequest:
        """Returns the request; its response has the message's id, by which it is changed later."""
        link = (text.link or "").replace(">", "%3E").replace("<", "%3C")
        title, body = fitted(text, MOST - _MARKUP - len(link), utf16, escape)
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
        if isinstance(code, int) and response.status in {401, 403, 404} and code in DEAD:
            return self.dead(DEAD[code])
        if response.status == 429:
            wait = seconds(found.get("retry_after"))
            # a response without JSON is of the network before Discord, which blocks this service's address
            everywhere = found.get("global") is True or not found
            return self.too_many(
                response.retry_after if wait is None else wait, everywhere=everywhere
            )
        return self.by_status(response)


def escape(text: str) -> str:
    """Returns a text in which nothing is Markdown; addresses stay as they are, and can be clicked."""
    return _SPECIAL.sub(lambda found: found[0] if len(found[0]) > 1 else f"\\{found[0]}", text)
