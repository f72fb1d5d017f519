"""What the services of chats have in common: a text, its request, what a response means, and how many are sent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from tocsin.engine.actors.machinery.http_actor import HttpRequest, HttpResponse
from tocsin.engine.model import Deferred, Outcome, Rejected
from tocsin.engine.text import clip

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
