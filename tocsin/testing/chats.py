"""A local far end of Slack, Discord, Microsoft Teams and Telegram, as far as notifications need them.

async with ChatServer() as chats:
    ...  # PUT /api/chat-targets/team/ {"kind": "slack", "url": chats.url("slack"), …}, TOCSIN_ALLOW_PRIVATE_ENDPOINTS=1
    chats.posts[-1].text
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any, Unpack

from aiohttp import web
from aiohttp.typedefs import Handler
from msgspec import Struct

from tocsin.testing.far_end import FarEndOptions, HttpFarEnd, play

Respond = Callable[[web.Request, dict[str, Any]], web.Response]

KINDS = ("slack", "discord", "teams", "telegram")


class Post(Struct):
    """One message in a chat, as it is now; `target` is the last part of the target's URL."""

    at: datetime
    kind: str
    target: str
    id: int
    text: str
    content: dict[str, Any]
    edits: int = 0  # how often it was changed


class ChatServer(HttpFarEnd[Post]):
    """Keeps what is posted in `posts`; `script` has the responses by kind, `on_request` is called for an edit too."""

    def __init__(self, **options: Unpack[FarEndOptions]) -> None:
        super().__init__(
            web.post("/services/T0/B0/{target}", self._scripted("slack", self._slack)),
            web.post("/api/webhooks/100/{target}", self._scripted("discord", self._discord)),
            web.patch(
                "/api/webhooks/100/{target}/messages/{id}",
                self._scripted("discord", self._discord_edit),
            ),
            web.post("/workflows/{target}", self._scripted("teams", self._teams)),
            web.post("/bot100:token/sendMessage", self._scripted("telegram", self._telegram)),
            web.post(
                "/bot100:token/editMessageText", self._scripted("telegram", self._telegram_edit)
            ),
            **options,
        )
        self._ids = count(1)

    @property
    def posts(self) -> list[Post]:
        """What was posted, as it is now."""
        return self.received

    def url(self, kind: str, target: str = "team") -> str:
        """Returns the URL of a target; one of Telegram is the id of a chat."""
        path = {
            "slack": f"/services/T0/B0/{target}",
            "discord": f"/api/webhooks/100/{target}",
            "teams": f"/workflows/{target}",
            "telegram": f"/bot100:token/sendMessage?chat_id={target}",
        }[kind]
        return f"{self.origin}{path}"

    def _slack(self, request: web.Request, content: dict[str, Any]) -> web.Response:
        if not isinstance(content.get("text"), str) or not content["text"]:
            return web.Response(status=400, text="no_text")
        self._post("slack", request.match_info["target"], content["text"], content)
        return web.Response(text="ok")

    def _discord(self, request: web.Request, content: dict[str, Any]) -> web.Response:
        if not 0 < len(content.get("content", "")) <= 2000:
            return _discord_error(400, 50035, "Invalid Form Body")
        post = self._post("discord", request.match_info["target"], content["content"], content)
        if request.query.get("wait") == "true":
            return web.json_response({"id": str(post.id), "content": post.text})
        return web.Response(status=204)

    def _discord_edit(self, request: web.Request, content: dict[str, Any]) -> web.Response:
        post = self._find("discord", request.match_info["target"], request.match_info["id"])
        if post is None:
            return _discord_error(404, 10008, "Unknown Message")
        self._change(post, content["content"], content)
        return web.json_response({"id": str(post.id), "content": post.text})

    def _teams(self, request: web.Request, content: dict[str, Any]) -> web.Response:
        blocks = content["attachments"][0]["content"]["body"]
        text = "\n".join(each["text"] for each in blocks)
        self._post("teams", request.match_info["target"], text, content)
        return web.Response(status=202)

    def _telegram(self, _request: web.Request, content: dict[str, Any]) -> web.Response:
        post = self._post("telegram", str(content["chat_id"]), content["text"], content)
        return web.json_response({"ok": True, "result": {"message_id": post.id}})

    def _telegram_edit(self, _request: web.Request, content: dict[str, Any]) -> web.Response:
        post = self._find("telegram", str(content["chat_id"]), str(content["message_id"]))
        if post is None:
            return _telegram_error(400, "Bad Request: message to edit not found")
        if post.text == content["text"]:
            return _telegram_error(400, "Bad Request: message is not modified: specified new ...")
        self._change(post, content["text"], content)
        return web.json_response({"ok": True, "result": {"message_id": post.id}})

    def _scripted(self, kind: str, respond: Respond) -> Handler:
        """Returns the handler of requests of a kind, with the scripted response where there is one."""

        async def handle(request: web.Request) -> web.StreamResponse:
            self.requests += 1
            content = json.loads(await request.read())
            turn = self.script.next(kind)
            return respond(request, content) if turn is None else await play(turn, request)

        return handle

    def _post(self, kind: str, target: str, text: str, content: dict[str, Any]) -> Post:
        post = Post(datetime.now(UTC), kind, target, next(self._ids), text, content)
        self.record(post)
        return post

    def _change(self, post: Post, text: str, content: dict[str, Any]) -> None:
        post.text, post.content, post.edits = text, content, post.edits + 1
        self.report(post)

    def _find(self, kind: str, target: str, id_: str) -> Post | None:
        return next(
            (
                each
                for each in self.posts
                if (each.kind, each.target, str(each.id)) == (kind, target, id_)
            ),
            None,
        )


def _discord_error(status: int, code: int, message: str) -> web.Response:
    return web.json_response({"code": code, "message": message}, status=status)


def _telegram_error(status: int, description: str) -> web.Response:
    """Returns an error as the Bot API writes it."""
    content = {"ok": False, "error_code": status, "description": description}
    return web.json_response(content, status=status)
