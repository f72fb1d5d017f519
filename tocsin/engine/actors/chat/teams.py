"""Microsoft Teams, by a workflow with the trigger "When a Teams webhook request is received".

Sources: https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using, and
…/how-to/add-incoming-webhook for the 28 kB and the four requests a second.
"""

from __future__ import annotations

import re

import msgspec

from tocsin.engine.actors.chat.service import (
    ChatReply,
    ChatRequest,
    ChatService,
    ChatText,
    SendLimit,
    fitted,
    read_json,
)
from tocsin.engine.actors.machinery.http_actor import HttpResponse
from tocsin.engine.model import Sent

MOST = 28_000
"""Bytes of a message."""

DEAD = frozenset({"WorkflowNotFound"})
"""Codes of errors that end a target (Azure Logic Apps, on which workflows run)."""

_CARD = 700  # bytes around the texts
_SPECIAL = re.compile(r"https?://[^\s<>()\[\]*~`|\\]+|[\\*_~`|>#\[\]()<-]|\n")


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
        title, body = fitted(text, MOST - _CARD - len(link.encode()), json_size, escape)
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
        if response.status == 404 and code in DEAD:
            return self.dead(str(code))
        if response.status == 410:
            return self.dead("410")
        return self.by_status(response)


def json_size(text: str) -> int:
    """Returns how many bytes a text takes in JSON, without its quotation marks."""
    return len(msgspec.json.encode(text)) - 2


def escape(text: str) -> str:
    """Returns a text in which nothing is Markdown; addresses can be clicked, and lines stay apart."""

    def escaped(found: re.Match[str]) -> str:
        if found[0] == "\n":
            return "\n\n"
        return found[0] if len(found[0]) > 1 else f"\\{found[0]}"

    return _SPECIAL.sub(escaped, text)
