"""Paths as they come in: behind a prefix, and with a slash inside an id."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit

from litestar.types import Scope

from tocsin.engine.model import NotFound

# Stands for %2F inside a segment while the path is routed; no id may have a control character.
_SLASH = "\x1f"


class PathReader:
    """Makes the path that is routed of the one that came."""

    def __init__(self, public_url: str | None) -> None:
        self._prefix = urlsplit(public_url or "").path.rstrip("/")

    def __call__(self, scope: Scope) -> str:
        """The path without the public URL's prefix (where the proxy left it), its %2F kept apart from /."""
        path = scope["path"]
        raw = scope.get("raw_path") or b""
        if b"%2f" in raw.lower():
            text = raw.split(b"?")[0].decode("latin-1")
            path = unquote(text.replace("%2F", _SLASH).replace("%2f", _SLASH), errors="replace")
        if self._prefix and path.startswith(self._prefix + "/"):
            path = path[len(self._prefix) :]
        return path


def rest(scope: Scope, route: str) -> str:
    """What follows `route` in the path, but for the last slash.

    As it came, since the router would lose a doubled slash. An id in it may be percent-encoded or not.
    """
    raw = (scope.get("raw_path") or quote(scope["path"]).encode()).split(b"?")[0].decode("latin-1")
    return decoded(unquote(raw.partition(route)[2].removesuffix("/"), errors="replace"))


def beside(scope: Scope) -> str:
    """What leads from a page to the folder it is in, reached with its last slash or without."""
    path = (scope.get("raw_path") or scope["path"].encode()).split(b"?")[0]
    return ".." if path.endswith(b"/") else "."


def decoded(segment: str) -> str:
    """An id of a path, its slashes put back; what no id can have is not found."""
    if "\0" in segment:
        raise NotFound("There is nothing by that id.")
    return segment.replace(_SLASH, "/")
