"""Google's access token: one for all senders, renewed in the background before it ends.

google-auth signs the service account's assertion in a thread; the request itself goes over our own session,
so that deadlines and certificates are ours too.
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

from tocsin.engine.actors.machinery.breaker import Clock
from tocsin.engine.model import Deferred

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
_MARGIN = 300.0
"""Seconds before its end from which on a token is renewed; a quarter of its life for short ones."""

_MOST_BYTES = 65_536
_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)  # google-auth's, over odd answers

log = structlog.get_logger(__name__)


class _Response(Struct, frozen=True):
    """An answer as google-auth reads it."""

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
        self._renew_at = self._ends_at = float("-inf")
        self._proven = False  # the provider took it at least once
        self._worth = True  # to try another one after a refusal
        self.current: str | None = None

    async def ready(self) -> Deferred | None:
        """Makes sure that there is a token, renewing it for all at once; `Deferred` says that none can be had."""
        now = self._clock()
        if self.current is not None and now < self._ends_at:
            if now >= self._renew_at:
                self._renew_at = now + self._timeout  # where it fails, not again at once
                self._start()
            return None
        # shielded: the others wait for it too
        return await asyncio.shield(self._start())

    def accepted(self, token: str) -> None:
        """The provider took it."""
        if token == self.current:
            self._proven = True

    def rejected(self, token: str) -> bool:
        """The provider doesn't take it: true if another one is worth a try.

        A token that once was good has ended early; one that never was says that the account isn't good.
        """
        if token == self.current:
            self._worth, self._proven, self.current = self._proven, False, None
        return self._worth

    async def close(self) -> None:
        """Ends a renewal under way."""
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
                post.cancel()  # else a thread that nobody waits for would go on waiting
        return None

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> _Response:
        """Asks the token endpoint; a failure that may pass is raised, or google-auth would sleep and ask again."""
        try:
            async with (
                ClientSession(
                    connector=TCPConnector(ssl=self._context),
                    timeout=ClientTimeout(total=self._timeout),
                ) as session,
                session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                data = await answer.content.read(_MOST_BYTES)
        except TimeoutError:
            raise TransportError("timeout") from None
        except (ClientError, OSError):
            raise TransportError("unreachable") from None
        if answer.status == 429 or answer.status >= 500:
            raise TransportError(str(answer.status))
        return _Response(answer.status, answer.headers, data)

    def _keep(self, token: str, expiry: datetime | None) -> None:
        """Google's clock says when it ends, in UTC without saying so."""
        life = 0.0
        if expiry is not None:
            life = (expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
        self._ends_at = self._clock() + life
        self._renew_at = self._ends_at - min(_MARGIN, life / 4)
        self.current, self._proven = token, False

    def _failed(self, how: str) -> Deferred:
        """Only an operator can help where the account itself is refused."""
        say = log.error if how == "refused" else log.warning
        say("no access token for FCM", reason=how, account=self._credentials.service_account_email)
        return Deferred(f"fcm_token_{how}")
