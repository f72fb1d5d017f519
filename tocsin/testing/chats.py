"""A local far end of Slack, Discord, Microsoft Teams and Telegram, as far as notifications need them.

async with ChatServer() as chats:
    ...  # PUT /api/chat-targets/team/ {"kind": "slack", "url": chats.url("slack"), …}, TOCSIN_ALLOW_PRIVATE_ENDPOINTS=1
    chats.posts[-1].text
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import count
from typing import Any, Unpack

from aiohttp import web
from msgspec import Struct

from tocsin.testing.far_end import FarEndOptions, HttpFarEnd, play

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
            web.post("/services/T0/B0/{target}", self._slack),
            web.post("/api/webhooks/100/{target}", self._discord),
            web.patch("/api/webhooks/100/{target}/messages/{id}", self._discord_edit),
            web.post("/workflows/{target}", self._teams),
            web.post("/bot100:token/sendMessage", self._telegram),
            web.post("/bot100:token/editMessageText", self._telegram_edit),
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

    async def _slack(self, request: web.Request) -> web.StreamResponse:
        content, turn = await self._read("slack", request)
        if turn is not None:
            return turn
        if not isinstance(content.get("text"), str) or not content["text"]:
            return web.Response(status=400, text="no_text")
        self._post("slack", request.match_info["target"], content["text"], content)
        return web.Response(text="ok")

    async def _discord(self, request: web.Request) -> web.StreamResponse:
        content, turn = await self._read("discord", request)
        if turn is not None:
            return turn
        if not 0 < len(content.get("content", "")) <= 2000:
            return _discord_error(400, 50035, "Invalid Form Body")
        post = self._post("discord", request.match_info["target"], content["content"], content)
        if request.query.get("wait") == "true":
            return web.json_response({"id": str(post.id), "content": post.text})
        return web.Response(status=204)

    async def _discord_edit(self, request: web.Request) -> web.StreamResponse:
        content, turn = await self._read("discord", request)
        if turn is not None:
            return turn
        post = self._find("discord", request.match_info["target"], request.match_info["id"])
        if post is None:
            return _discord_error(404, 10008, "Unknown Message")
        self._change(post, content["content"], content)
        return web.json_response({"id": str(post.id), "content": post.text})

    async def _teams(self, request: web.Request) -> web.StreamResponse:
        content, turn = await self._read("teams", request)
        if turn is not None:
            return turn
        blocks = content["attachments"][0]["content"]["body"]
        text = "\n".join(each["text"] for each in blocks)
        self._post("teams", request.match_info["target"], text, content)
        return web.Response(status=202)

    async def _telegram(self, request: web.Request) -> web.StreamResponse:
        content, turn = await self._read("telegram", request)
        if turn is not None:
            return turn
        post = self._post("telegram", str(content["chat_id"]), content["text"], content)
        return web.json_response({"ok": True, "result": {"message_id": post.id}})

    async def _telegram_edit(self, request: web.Request) -> web.StreamResponse:
        content, turn = await self._read("telegram", request)
        if turn is not None:
            return turn
        post = self._find("telegram", str(content["chat_id"]), str(content["message_id"]))
        if post is None:
            return _telegram_error(400, "Bad Request: message to edit not found")
        if post.text == content["text"]:
            return _telegram_error(400, "Bad Request: message is not modified: specified new ...")
        self._change(post, content["text"], content)
        return web.json_response({"ok": True, "result": {"message_id": post.id}})

    async def _read(
        self, kind: str, request: web.Request
    ) -> tuple[dict[str, Any], web.StreamResponse | None]:
        """Returns what was sent, and the scripted response if there is one."""
        self.requests += 1
        content = json.loads(await request.read())
        turn = self.script.next(kind)
        return content, None if turn is None else await play(turn, request)

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
