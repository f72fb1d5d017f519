"""Google's access token: one for all senders, renewed in the background before it expires.

google-auth signs the assertion of the service account in a thread. The request is made here, with our own timeouts and
certificates.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

import structlog
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
from google.oauth2.service_account import Credentials
from msgspec import Struct

from tocsin.engine.actors.machinery.envelope import Clock
from tocsin.engine.model import Deferred

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
_MARGIN = 300.0
"""A token is renewed so many seconds before it expires; a short one after three quarters of its life."""

_MOST_BYTES = 65_536
# raised by google-auth for invalid responses
_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)

log = structlog.get_logger(__name__)


class _Response(Struct, frozen=True):
    """A response as google-auth reads it."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class AccessToken:
    """The access token of one service account; `timeout` bounds a renewal in seconds."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        context: ssl.SSLContext,
        timeout: float = 10.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._credentials = credentials
        self._context = context
        self._timeout = timeout
        self._clock = clock
        self._renewal: asyncio.Task[Deferred | None] | None = None
        self._renew_at = self._expires_at = float("-inf")
        self._accepted = False  # the provider accepted it at least once
        self._retry = True  # whether another token is tried after a rejection
        self.current: str | None = None

    async def ready(self) -> Deferred | None:
        """Makes sure that there is a token, with one renewal for all senders; returns `Deferred` if there is none."""
        now = self._clock()
        if self.current is not None and now < self._expires_at:
            if now >= self._renew_at:
                self._renew_at = now + self._timeout  # if it fails, the next one is not at once
                self._start()
            return None
        # shielded, since other senders wait for it too
        return await asyncio.shield(self._start())

    def accepted(self, token: str) -> None:
        """Called when the provider accepted a token."""
        if token == self.current:
            self._accepted = True

    def rejected(self, token: str) -> bool:
        """Called when the provider rejected a token; returns whether to retry with another one.

        A token that was accepted before has expired early. One that never was means that the account is refused.
        """
        if token == self.current:
            self._retry, self._accepted, self.current = self._accepted, False, None
        return self._retry

    async def close(self) -> None:
        """Cancels a renewal that runs."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)

    def _start(self) -> asyncio.Task[Deferred | None]:
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew(), name="fcm-access")
        return self._renewal

    async def _renew(self) -> Deferred | None:
        loop = asyncio.get_running_loop()
        posts: list[Future[_Response]] = []

        def request(url: str, **given: Any) -> _Response:
            posting = self._post(url, given.get("body") or b"", given.get("headers") or {})
            posts.append(asyncio.run_coroutine_threadsafe(posting, loop))
            return posts[-1].result()

        try:
            await asyncio.to_thread(self._credentials.refresh, request)
            self._keep(str(self._credentials.token), self._credentials.expiry)
        except TransportError as error:
            return self._failed(str(error))
        except RefreshError:
            return self._failed("refused")
        except (GoogleAuthError, *_UNREADABLE):
            return self._failed("unreadable")
        finally:
            for post in posts:
                post.cancel()  # else the thread would wait on
        return None

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> _Response:
        """Sends a request to the token endpoint; raises transient failures, for which google-auth would sleep."""
        try:
            async with (
                ClientSession(
                    connector=TCPConnector(ssl=self._context),
                    timeout=ClientTimeout(total=self._timeout),
                ) as session,
                session.post(url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                data = await response.content.read(_MOST_BYTES)
        except TimeoutError:
            raise TransportError("timeout") from None
        except (ClientError, OSError):
            raise TransportError("unreachable") from None
        if response.status == 429 or response.status >= 500:
            raise TransportError(str(response.status))
        return _Response(response.status, response.headers, data)

    def _keep(self, token: str, expiry: datetime | None) -> None:
        """Stores a token; `expiry` is by Google's clock, in UTC without a time zone."""
        life = 0.0
        if expiry is not None:
            life = (expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
        self._expires_at = self._clock() + life
        self._renew_at = self._expires_at - min(_MARGIN, life / 4)
        self.current, self._accepted = token, False

    def _failed(self, reason: str) -> Deferred:
        """Logs an error if only an operator can help, since the account itself is refused."""
        write = log.error if reason == "refused" else log.warning
        write(
            "no access token for FCM",
            reason=reason,
            account=self._credentials.service_account_email,
        )
        return Deferred(f"fcm_token_{reason}")
