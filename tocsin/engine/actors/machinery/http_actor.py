"""An actor that sends each message as one HTTP request; a subclass gives the request and classifies the response.

The base keeps the rest: a connection that is kept alive, a valid check right before the first byte, the deadline,
Retry-After, and whether a request without a response may have been accepted.
"""

from __future__ import annotations

import asyncio
import math
import re
import socket
import ssl
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, ClassVar

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
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import Connection
from msgspec import Struct

from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.actors.machinery.endpoints import is_allowed
from tocsin.engine.actors.machinery.envelope import Envelope, RetryNow, SendResult
from tocsin.engine.model import CheckResult, Deferred, Rejected, Unknown

MOST_BYTES = 65_536
"""A response body is read up to this size."""

LONGEST_WAIT = 86_400.0
"""Seconds: a Retry-After beyond a day is a mistake, and would stop a channel."""

_SECONDS = re.compile(r"\d{1,9}", re.ASCII)
_ENVELOPE: ContextVar[Envelope] = ContextVar("envelope")


class HttpRequest(Struct, frozen=True):
    """One request."""

    url: str
    body: bytes
    headers: Mapping[str, str] = {}
    method: str = "POST"


class HttpResponse(Struct, frozen=True):
    """A complete response; `retry_after` is its Retry-After in seconds, a day at most."""

    request: HttpRequest
    status: int
    headers: Mapping[str, str]
    body: bytes
    retry_after: float | None = None


class ForbiddenAddressError(OSError):
    """Raised by an actor's own resolver for a host that must not be connected to."""


class PublicResolver(AbstractResolver):
    """Resolves to public addresses only, and for development to this machine.

    The connection then uses exactly the returned addresses.
    """

    def __init__(self, *, allow_loopback: bool = False) -> None:
        self._allow_loopback = allow_loopback

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Returns all addresses of a host; raises ForbiddenAddressError if any of them is private."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        results = [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for kind, _, protocol, _, address in found
        ]
        if not all(
            is_allowed(result["host"], allow_loopback=self._allow_loopback) for result in results
        ):
            raise ForbiddenAddressError
        return results

    async def close(self) -> None:
        """Has nothing to close."""


class _StaleCheckError(Exception):
    """The check before sending became too old while connecting."""


class _Request(ClientRequest):
    """Calls `envelope.begin()` once there is a connection, right before the first byte."""

    async def send(self, conn: Connection) -> ClientResponse:
        envelope = _ENVELOPE.get()
        if not envelope.begin():
            conn.release()  # it is used again after the next check
            raise _StaleCheckError
        # a request is one small write: from its first byte on, the provider may have accepted it
        envelope.commit()
        return await super().send(conn)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class HttpActor(Actor[ClientSession]):
    """Sends each message as one HTTP request; see docs/channels.md for an example.

    A sender has at most one open connection at a time, to the host of its request. It follows no redirect, keeps no
    cookie and reads no proxy from the environment. `timeout` bounds an exchange and `keep_alive` an unused connection,
    in seconds. With `public_only`, the actor connects to public addresses alone, and where `allow_loopback` to this
    machine too. Further options are those of `Actor`.
    """

    several_services: ClassVar[bool] = False
    """Whether its addresses are of independent services, so that the failure of one is none of the provider."""

    def __init__(
        self,
        *,
        ca_file: Path | str | None = None,
        timeout: float = 15.0,
        keep_alive: float = 60.0,
        public_only: bool = False,
        allow_loopback: bool = False,
        now: Callable[[], datetime] = _utc_now,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.allow_loopback = allow_loopback
        self._context = ssl.create_default_context(cafile=ca_file)
        self._timeout = timeout
        self._keep_alive = keep_alive
        self._resolver = PublicResolver(allow_loopback=allow_loopback) if public_only else None
        self._now = now

    # What a subclass defines.

    @abstractmethod
    def request(
        self, envelope: Envelope, check_result: CheckResult
    ) -> HttpRequest | Rejected | RetryNow:
        """Returns the request that sends this message to `check_result.address`; `Rejected` if there can be none."""

    @abstractmethod
    def classify(self, response: HttpResponse) -> SendResult | RetryNow:
        """Returns what a response means for the message, its address, and the provider."""

    def classify_no_response(self, reason: str, *, sent: bool) -> SendResult:
        """Returns what it means that no response came; `sent` if the provider may have accepted the message."""
        reason, forbidden = f"{self.name}_{reason}", reason == "address_forbidden"
        if forbidden:
            return SendResult(Rejected(reason))
        outcome = Unknown(reason) if sent else Deferred(reason)
        return SendResult(outcome, provider_failed=not self.several_services, keep_connection=False)

    async def authorize(self) -> Deferred | None:
        """Obtains credentials before the check; returns `Deferred` if there are none."""
        return None

    # What the base needs.

    async def prepare(self, connection: ClientSession | None) -> ClientSession | Deferred:
        """Returns a connection, which opens when it is first used: its host is known with the address only."""
        failure = await self.authorize()
        if failure is None:
            return connection or self._session()
        if connection is not None:
            await connection.close()
        return failure

    async def transmit(
        self, connection: ClientSession, envelope: Envelope
    ) -> SendResult | RetryNow:
        """Sends one request and returns what its response means."""
        if envelope.check_result is None:
            return RetryNow(keep_connection=True)
        request = self.request(envelope, envelope.check_result)
        if isinstance(request, RetryNow):
            return request
        if isinstance(request, Rejected):
            return SendResult(request)
        token = _ENVELOPE.set(envelope)
        try:
            async with connection.request(
                request.method,
                request.url,
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
            ) as response:
                body = await _read(response)
        except _StaleCheckError:
            return RetryNow(keep_connection=True)
        except (ClientError, OSError, ValueError) as error:
            return self.classify_no_response(_failure(error), sent=envelope.committed)
        finally:
            _ENVELOPE.reset(token)
        headers = response.headers
        wait = (
            retry_after(headers["Retry-After"], self._now()) if "Retry-After" in headers else None
        )
        return self.classify(HttpResponse(request, response.status, headers, body, wait))

    async def discard(self, connection: ClientSession) -> None:
        """Closes it."""
        await connection.close()

    def _session(self) -> ClientSession:
        connector = TCPConnector(
            limit=1,
            ssl=self._context,
            keepalive_timeout=self._keep_alive,
            resolver=self._resolver,
        )
        return ClientSession(
            connector=connector,
            request_class=_Request,
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=self._timeout),
            auto_decompress=False,  # a small response could unpack to a huge one
            headers={"User-Agent": "Tocsin", "Accept-Encoding": "identity"},
        )


def retry_after(text: str, now: datetime) -> float | None:
    """Returns the seconds of a Retry-After (RFC 9110 section 10.2.3: a number, or a date), a day at most."""
    if _SECONDS.fullmatch(text.strip()):
        return min(float(text), LONGEST_WAIT)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(0.0, math.ceil((at - now).total_seconds())), LONGEST_WAIT)


async def _read(response: ClientResponse) -> bytes:
    """Returns the body; of one that is too long its beginning, and the connection is not used again."""
    body = b""
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MOST_BYTES:
            response.close()
            break
    return body[:MOST_BYTES]


def _failure(error: Exception) -> str:
    """Returns a stable word for a failure of the network."""
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
