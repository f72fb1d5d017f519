"""Any other service, by Apprise (https://github.com/caronc/apprise), which is the extra `tocsin[apprise]`.

Its promise is weaker. Apprise states only whether a message was accepted: there are no error classes, no Retry-After
and no changes of messages; no target is disabled, and a refused message is tried again until its attempts are over. It
makes its own connections: that an address is public is checked before it does, and redirects are off.
"""

from __future__ import annotations

import asyncio
import socket
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import structlog

from tocsin.engine.actors.chat.service import ChatText, SendLimit
from tocsin.engine.actors.machinery.envelope import describe
from tocsin.engine.actors.machinery.public_address import is_allowed
from tocsin.engine.model import Deferred, Outcome, Rejected, Sent

if TYPE_CHECKING:
    from apprise import NotifyBase

KIND = "apprise"
EXAMPLE = "mmosts://mattermost.example.com/token"
LIMIT = SendLimit(1, 1.0)
MOST = 2000
"""Characters of a body, as the shortest of the common services take it; Apprise cuts further where it has to."""

# they write to this machine, whatever their URL
_LOCAL = frozenset({"dbus", "glib", "gnome", "kde", "macosx", "qt", "rsyslog", "syslog", "windows"})

log = structlog.get_logger(__name__)


def apprise_fault(url: str, *, allow_loopback: bool) -> str | None:
    """Returns why nothing is sent to a URL; None if it may be. Resolves its host, so it is for a thread."""
    if find_spec("apprise") is None:
        return "apprise_not_installed"
    plugin = _plugin(url)
    if plugin is None:
        return "url_not_of_apprise"
    local = url.partition(":")[0].lower() in _LOCAL
    host = str(getattr(plugin, "host", "") or "")
    if (local and not allow_loopback) or not _may_be_allowed(host, allow_loopback):
        return "address_forbidden"
    return None


async def send(url: str, text: ChatText) -> Outcome:
    """Sends one message in a thread, and returns what Apprise states about it."""
    try:
        accepted = await asyncio.to_thread(_send, url, text)
    except Exception as error:  # noqa: BLE001 - one of a hundred plugins
        log.warning("apprise failed", **describe(error))
        return Deferred("apprise_failed")
    if accepted is None:
        return Rejected("apprise_url_invalid")
    return Sent() if accepted else Deferred("apprise_refused")


def _send(url: str, text: ChatText) -> bool | None:
    plugin = _plugin(url)
    if plugin is None:
        return None
    body = text.body[:MOST]
    shown = "\n".join(each for each in (body, text.link) if each) or text.title
    return bool(plugin.notify(title=text.title, body=shown))


def _plugin(url: str) -> NotifyBase | None:
    from apprise import Apprise, NotifyBase  # two seconds to import

    plugin: Any = Apprise.instantiate(url, suppress_exceptions=True)
    if not isinstance(plugin, NotifyBase):
        return None
    plugin.redirects = False  # they could lead elsewhere
    return plugin


def _may_be_allowed(host: str, allow_loopback: bool) -> bool:
    """Returns whether a host may be connected to. What has no address is not a host, but a part of a token."""
    host = host.strip("[]")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM) if host else []
    except (OSError, UnicodeError):
        return True
    return all(is_allowed(str(address[0]), allow_loopback=allow_loopback) for *_, address in found)
