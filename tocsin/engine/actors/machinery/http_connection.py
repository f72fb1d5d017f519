"""One HTTP connection that is used again; a request's first byte leaves on a fresh presend check only.

What an actor that posts over HTTP shares with the next: the exchange, its deadlines, and how it was lost.
"""

from __future__ import annotations

import math
import re
import ssl
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from aiohttp import (
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientError,
    ClientOSError,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientSSLError,
    ClientTimeout,
    DummyCookieJar,
    ServerDisconnectedError,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver
from aiohttp.connector import Connection
from msgspec import Struct

from tocsin.engine.actors.machinery.mailbox import Envelope
from tocsin.engine.actors.machinery.outcome import Again, Answer
from tocsin.engine.model import Deferred, Unknown

MOST_BYTES = 65_536
"""An answer longer than this is nobody's."""

LONGEST_WAIT = 86_400.0
"""Seconds: a Retry-After beyond a day is a mistake, and would end a channel."""

_SECONDS = re.compile(r"\d{1,9}", re.ASCII)
_ENVELOPE: ContextVar[Envelope] = ContextVar("envelope")


class Reply(Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Lost(Struct, frozen=True):
    """No answer, or none that can be read: `how` is a stable word for it."""

    how: str


class ForbiddenAddressError(OSError):
    """A resolver of the actor's own won't have this host connected to."""


class _StaleLookError(Exception):
    """The presend check grew old while connecting."""


class _Request(ClientRequest):
    """Asks the envelope once a connection is there, right before the first byte."""

    async def send(self, conn: Connection) -> ClientResponse:
        envelope = _ENVELOPE.get()
        if not envelope.begin():
            conn.release()  # a good one: it is used after another check
            raise _StaleLookError
        # a request is one small write: from its first byte on, the provider may have it
        envelope.commit()
        return await super().send(conn)


class HttpConnection:
    """At most one connection at a time, to whatever host is asked for; `timeout` is for a whole exchange.

    It follows no redirect, keeps no cookie and reads no proxy from the environment. With a `resolver` of the
    actor's own, it connects to the addresses that this gave, and to no others.
    """

    def __init__(
        self,
        *,
        context: ssl.SSLContext,
        timeout: float,
        keep_alive: float = 60.0,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._session = ClientSession(
            connector=TCPConnector(
                limit=1, ssl=context, keepalive_timeout=keep_alive, resolver=resolver
            ),
            request_class=_Request,
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=timeout),
            auto_decompress=False,  # a small answer that unpacks to a huge one
            headers={"User-Agent": "Tocsin", "Accept-Encoding": "identity"},
        )

    async def post(
        self, envelope: Envelope, url: str, *, body: bytes, headers: Mapping[str, str]
    ) -> Reply | Lost | Again:
        """Posts the body once; `Again` says that nothing left, since the presend check grew too old."""
        mark = _ENVELOPE.set(envelope)
        try:
            async with self._session.post(
                url, data=body, headers=headers, allow_redirects=False
            ) as response:
                answer = await _read(response)
        except _StaleLookError:
            return Again(keep=True)
        except (ClientError, OSError, ValueError) as error:
            return Lost(_how(error))
        finally:
            _ENVELOPE.reset(mark)
        return Reply(response.status, response.headers, answer)

    async def close(self) -> None:
        """Closes it, at any time."""
        await self._session.close()


def lost(channel: str, how: str, *, sent: bool) -> Answer:
    """What it means that no answer came: the provider may have what was sent."""
    outcome = Unknown if sent else Deferred
    return Answer(outcome(f"{channel}_{how}"), provider_failed=True, keep=False)


def retry_after(text: str | None, now: datetime) -> float | None:
    """The seconds of a Retry-After (RFC 9110 section 10.2.3: a number, or a date), a day at most."""
    if text is None:
        return None
    if _SECONDS.fullmatch(text.strip()):
        return min(float(text), LONGEST_WAIT)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(0.0, math.ceil((at - now).total_seconds())), LONGEST_WAIT)


async def _read(response: ClientResponse) -> bytes:
    """The body; of one that is too long the beginning, and its connection is not used again."""
    body = b""
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MOST_BYTES:
            response.close()
            break
    return body[:MOST_BYTES]


def _how(error: Exception) -> str:
    """A stable word for a failure of the network."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ClientConnectorDNSError):
        forbidden = isinstance(error.os_error, ForbiddenAddressError)
        return "address_forbidden" if forbidden else "host_unknown"
    if isinstance(error, ClientSSLError | ssl.SSLError):
        return "tls_failed"
    if isinstance(error, ClientConnectorError):
        refused = isinstance(error.os_error, ConnectionRefusedError)
        return "connect_refused" if refused else "connect_failed"
    if isinstance(error, ServerDisconnectedError | ClientOSError | OSError):
        return "disconnected"
    return "protocol_error"
