"""Push by FCM's HTTP v1 API: pyfcm writes the payload, google-auth signs for the token, the exchange is ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import structlog
from google.oauth2.service_account import Credentials
from pyfcm import FCMNotification

from tocsin.engine.actors.fcm.access_token import SCOPE, AccessToken
from tocsin.engine.actors.fcm.payload import FcmPayload, FcmTooLargeError, silent, with_token
from tocsin.engine.actors.fcm.reply import classify, invalid_fields, read, unreadable
from tocsin.engine.actors.machinery.envelope import Envelope, RetryNow, SendResult
from tocsin.engine.actors.machinery.http_actor import HttpActor, HttpRequest, HttpResponse
from tocsin.engine.model import CheckResult, Deferred, Message, Priority, Push, Rejected

GOOGLE = "https://fcm.googleapis.com"
_ADVICE = (
    "fcm refuses every device, so none is believed to be bad: is TOCSIN_FCM_SERVICE_ACCOUNT of the Firebase project"
    " that the app registers with?"
)
_DEFAULTS: dict[str, Any] = {
    "name": "fcm",
    "advice": _ADVICE,
    "senders": 32,
    "size": 512,
    "timeout": 20.0,
}
_BEARER, _JSON = "Bearer ", "application/json"
_OURS = ("fcm_401", "fcm_403", "fcm_404")

log = structlog.get_logger(__name__)


class FcmActor(HttpActor):
    """Sends pushes through one Firebase project.

    `service_account` is Google's JSON, parsed; its `token_uri` is used. `url` is where FCM is, `channel_id` the
    Android notification channel. Further options are those of `HttpActor`. Raises ValueError for an invalid
    service account.
    """

    def __init__(
        self,
        *,
        service_account: Mapping[str, Any],
        url: str = GOOGLE,
        channel_id: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**(_DEFAULTS | options))
        credentials = Credentials.from_service_account_info(service_account, scopes=[SCOPE])
        project = quote(_project(service_account), safe="")
        self._url = f"{url.rstrip('/')}/v1/projects/{project}/messages:send"
        self._access = AccessToken(credentials, context=self._context)
        self._payload = FcmPayload(FCMNotification(credentials=credentials), channel_id)

    async def stop(self, grace: float = 5.0) -> None:
        """Stops, and cancels a renewal of the access token."""
        await super().stop(grace)
        await self._access.close()

    def draft(self, message: Message) -> bytes | Rejected:
        """Returns the JSON without the device token."""
        if not isinstance(message.content, Push):
            return Rejected("not_a_push")
        push, tag = message.content, f"tocsin-{message.delivery_id}"
        high = not silent(push) and message.priority is not Priority.LOW
        try:
            return self._payload.draft(push, tag=tag, now=self._now(), high=high)
        except FcmTooLargeError:
            log.error("push too large", delivery_id=message.delivery_id)
            return Rejected("payload_too_large")
        except UnicodeEncodeError:  # half of a surrogate pair
            return Rejected("invalid_text")

    async def authorize(self) -> Deferred | None:
        """Makes sure that there is an access token."""
        return await self._access.ready()

    def request(self, envelope: Envelope, check_result: CheckResult) -> HttpRequest | RetryNow:
        """Returns the request to the device token of the check."""
        if self._access.current is None:  # rejected since the actor had it
            return RetryNow(keep_connection=True)
        return HttpRequest(
            self._url,
            with_token(envelope.draft, check_result.address, check_result.badge),
            {"Authorization": f"{_BEARER}{self._access.current}", "Content-Type": _JSON},
        )

    def classify(self, response: HttpResponse) -> SendResult | RetryNow:
        """See `reply.classify`; a rejected access token is renewed once."""
        found = read(response.body)
        if found is None and 200 <= response.status < 300:
            return unreadable(response.status)
        code, details = found or (None, ())
        token = response.request.headers["Authorization"].removeprefix(_BEARER)
        if response.status != 401 or code == "THIRD_PARTY_AUTH_ERROR":
            self._access.accepted(token)
        elif self._access.rejected(token):
            return RetryNow(keep_connection=True)
        result = classify(response.status, code, details, response.retry_after)
        _log_what_needs_an_operator(result, details)
        return result


def _log_what_needs_an_operator(result: SendResult, details: tuple[str, ...]) -> None:
    """Logs an error where only an operator can help: our credentials, or a request that FCM doesn't understand."""
    outcome = result.outcome
    if isinstance(outcome, Rejected) and not (outcome.address_dead or outcome.quarantine):
        log.error("fcm refused the request", reason=outcome.reason, fields=invalid_fields(details))
    elif isinstance(outcome, Deferred) and outcome.reason.startswith(_OURS):
        log.error("fcm refused our credentials or project", reason=outcome.reason)


def _project(service_account: Mapping[str, Any]) -> str:
    project = service_account.get("project_id")
    if not isinstance(project, str) or not project:
        raise ValueError("the service account names no project_id")
    return project
