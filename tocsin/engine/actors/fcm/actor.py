"""Push by FCM's HTTP v1 API: pyfcm writes the payload, google-auth signs for the token, the exchange is ours."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog
from google.oauth2.service_account import Credentials
from msgspec.structs import replace
from pyfcm import FCMNotification

from tocsin.engine.actors.fcm import reply as replies
from tocsin.engine.actors.fcm.access import SCOPE, Access
from tocsin.engine.actors.fcm.payload import FcmPayload, TooLargeError, address, silent
from tocsin.engine.actors.machinery.base import Actor
from tocsin.engine.actors.machinery.http_connection import (
    HttpConnection,
    Lost,
    Reply,
    lost,
    retry_after,
)
from tocsin.engine.actors.machinery.mailbox import Envelope
from tocsin.engine.actors.machinery.outcome import Again, Answer
from tocsin.engine.model import (
    CheckResult,
    Deferred,
    Message,
    PresendCheck,
    Priority,
    Push,
    Rejected,
)

GOOGLE = "https://fcm.googleapis.com"
_DEFAULTS: dict[str, Any] = {"senders": 32, "size": 512, "check_ahead": 128}
_STORM = (
    "fcm refuses every device, so none is believed to be bad: is TOCSIN_FCM_SERVICE_ACCOUNT of the Firebase project"
    " that the app registers with?"
)
_OURS = ("fcm_401", "fcm_403", "fcm_404")

log = structlog.get_logger(__name__)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class FcmActor(Actor[HttpConnection]):
    """Sends pushes through one Firebase project.

    `service_account` is Google's JSON, parsed; its `token_uri` is honoured. `url` is where FCM is. `channel_id` is
    the Android notification channel, `timeout` bounds an exchange in seconds. Further options are those of
    `Actor`. Raises ValueError for a service account that is none.
    """

    def __init__(
        self,
        *,
        presend_check: PresendCheck,
        service_account: Mapping[str, Any],
        url: str = GOOGLE,
        ca_file: Path | str | None = None,
        channel_id: str | None = None,
        timeout: float = 20.0,
        now: Callable[[], datetime] = _utc_now,
        **options: Any,
    ) -> None:
        super().__init__(
            name="fcm", presend_check=presend_check, advice=_STORM, **(_DEFAULTS | options)
        )
        credentials = Credentials.from_service_account_info(service_account, scopes=[SCOPE])
        project = quote(_project(service_account), safe="")
        self._url = f"{url.rstrip('/')}/v1/projects/{project}/messages:send"
        self._context = ssl.create_default_context(cafile=ca_file)
        self._access = Access(credentials, context=self._context)
        self._payload = FcmPayload(FCMNotification(credentials=credentials), channel_id)
        self._timeout = timeout
        self._now = now

    async def stop(self, grace: float = 5.0) -> None:
        """As any actor; a renewal of the token under way is given up."""
        await super().stop(grace)
        await self._access.close()

    def draft(self, message: Message) -> bytes | Rejected:
        """The JSON, but for its device token."""
        if not isinstance(message.content, Push):
            return Rejected("not_a_push")
        push, tag = message.content, f"tocsin-{message.delivery_id}"
        high = not silent(push) and message.priority is not Priority.LOW
        try:
            return self._payload.draft(push, tag=tag, now=self._now(), high=high)
        except TooLargeError:
            log.error("push too large", delivery_id=message.delivery_id)
            return Rejected("payload_too_large")
        except UnicodeEncodeError:  # half a character
            return Rejected("invalid_text")

    async def prepare(self, connection: HttpConnection | None) -> HttpConnection | Deferred:
        """An access token that is good, and a connection, which opens as it is used."""
        refusal = await self._access.ready()
        if refusal is None:
            return connection or HttpConnection(context=self._context, timeout=self._timeout)
        if connection is not None:
            await connection.close()
        return refusal

    async def transmit(self, connection: HttpConnection, envelope: Envelope) -> Answer | Again:
        """Posts it to the token of this moment; see `classify` for the answers."""
        check_result, token = envelope.check_result, self._access.current
        if check_result is None or token is None:
            return Again(keep=True)
        reply = await connection.post(
            envelope,
            self._url,
            body=address(envelope.draft, check_result.address, check_result.badge),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        if isinstance(reply, Again):
            return reply
        if isinstance(reply, Lost):
            return lost("fcm", reply.how, sent=envelope.committed)
        return self._judge(reply, token, envelope, check_result)

    async def discard(self, connection: HttpConnection) -> None:
        """Closes it."""
        await connection.close()

    def _judge(
        self, reply: Reply, token: str, envelope: Envelope, check_result: CheckResult
    ) -> Answer | Again:
        """What an answer means, and what it says of the access token."""
        found = replies.read(reply.body)
        if found is None and 200 <= reply.status < 300:
            return replies.unreadable(reply.status)
        code, details = found or (None, ())
        if reply.status != 401 or code == "THIRD_PARTY_AUTH_ERROR":
            self._access.accepted(token)
        elif self._access.refused(token):
            envelope.committed = False  # refused at the door
            return Again(keep=True)
        wait = retry_after(reply.headers.get("Retry-After"), self._now())
        answer = replies.classify(reply.status, code, details, wait)
        self._tell(answer, details)
        if isinstance(answer.outcome, Rejected) and answer.outcome.address_dead:
            # FCM doesn't say since when: whoever registered it after our presend check has it anew
            return replace(
                answer, outcome=replace(answer.outcome, dead_since=check_result.checked_at)
            )
        return answer

    def _tell(self, answer: Answer, details: tuple[str, ...]) -> None:
        """Loud where only an operator can help: our credentials, or a request that FCM doesn't understand."""
        outcome, at_fault = answer.outcome, replies.fields(details)
        if isinstance(outcome, Rejected) and not (outcome.address_dead or outcome.quarantine):
            log.error("fcm refused the request", reason=outcome.reason, fields=at_fault)
        elif isinstance(outcome, Deferred) and outcome.reason.startswith(_OURS):
            log.error("fcm refused our credentials or project", reason=outcome.reason)


def _project(service_account: Mapping[str, Any]) -> str:
    project = service_account.get("project_id")
    if not isinstance(project, str) or not project:
        raise ValueError("the service account names no project_id")
    return project
