"""Push by FCM's HTTP v1 API: pyfcm writes the payload, google-auth signs for the token, the exchange is ours.

What responses mean is stated by pure functions, tested as tables. They are those of
https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode, and what the API was observed to return: it reports an
invalid token only in the text of a message, and an exhausted project quota without an error code of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec
import structlog
from google.oauth2.service_account import Credentials
from pyfcm import FCMNotification

from tocsin.engine.actors.fcm_token import SCOPE, AccessToken
from tocsin.engine.actors.machinery.envelope import Envelope, RetryNow, SendResult
from tocsin.engine.actors.machinery.http_actor import HttpActor, HttpRequest, HttpResponse
from tocsin.engine.model import (
    CheckResult,
    Deferred,
    Message,
    Priority,
    Push,
    PushKind,
    Rejected,
    Sent,
    Unknown,
)
from tocsin.engine.text import clip

MOST_BYTES = 4096 - 64
"""FCM's limit, applied to the message without its token and badge: then no platform's part is larger."""

LONGEST_LIFE = 28 * 24 * 3600
"""Seconds that FCM keeps a message for a device that is offline."""

SHORTEST_WAIT = 10.0
"""Seconds before any retry, as Google asks."""

QUOTA_WAIT = 60.0
"""Seconds to pause where a 429 has no Retry-After."""

_TOPIC = re.compile(r"[A-Za-z0-9_-]{1,32}")  # RFC 8030 section 5.4
_COLLAPSE_BYTES = 64
_CODE = re.compile(r"[A-Z][A-Z_]{1,39}")
_NAME = re.compile(r"projects/[\w.:-]{1,100}/messages/[\w.:%-]{1,200}", re.ASCII)
_FIELD = re.compile(r"(?:message|validate_only)\b[\w.\[\]]{0,80}", re.ASCII)
_TOKEN_FIELD = "message.token"
_TOKEN_TEXT = re.compile(r"\bregistration token\b", re.IGNORECASE)
_OTHER_APP = frozenset({"BadDeviceToken", "DeviceTokenNotForTopic"})  # Apple's, through FCM
_ONE_DEVICE = re.compile(r"\bdevice\b", re.IGNORECASE)


class FcmTooLargeError(Exception):
    """A push is too large even without its texts."""


class FcmPayload:
    """Writes pushes; `channel_id` is the Android notification channel, the app's default where it is None."""

    def __init__(self, pyfcm: FCMNotification, channel_id: str | None = None) -> None:
        self._pyfcm = pyfcm
        self._channel_id = channel_id

    def draft(self, push: Push, *, tag: str, now: datetime, high: bool) -> bytes:
        """Returns the JSON without token and badge, its texts cut so that it fits; raises FcmTooLargeError.

        `tag` identifies the delivery: a repeated push replaces the first one on the device.
        """
        blocks = self._blocks(push, tag, now, high=high)

        def write(title: str, body: str) -> bytes:
            shown = {} if silent(push) else {"notification_title": title, "notification_body": body}
            return bytes(self._pyfcm.parse_payload(**shown, **blocks))

        draft = write(push.title, push.body)
        if len(draft) <= MOST_BYTES:
            return draft
        if body := clip(push.body, MOST_BYTES - len(write(push.title, "x")) + 1, _json_size):
            return write(push.title, body)
        title = clip(push.title, MOST_BYTES - len(write("x", "")) + 1, _json_size)
        if not title:  # without any text it would be a silent push
            raise FcmTooLargeError
        return write(title, "")

    def _blocks(self, push: Push, tag: str, now: datetime, *, high: bool) -> dict[str, Any]:
        life = _seconds(push.expires_at, now)
        return {
            "data_payload": push.data or ({"silent": "1"} if silent(push) else None),
            "android_config": self._android(push, tag, life, high=high),
            "apns_config": _apns(push, tag, high=high),
            "webpush_config": _webpush(push, tag, life, high=high),
        }

    def _android(self, push: Push, tag: str, life: int | None, *, high: bool) -> dict[str, Any]:
        block: dict[str, Any] = {"priority": "HIGH" if high else "NORMAL"}
        if life is not None:
            block["ttl"] = f"{life}s"
        if push.collapse_id:
            block["collapse_key"] = push.collapse_id
        if not silent(push):
            shown = {"tag": push.collapse_id or tag, "default_sound": True}
            more = {"channel_id": self._channel_id} if self._channel_id else {}
            block["notification"] = shown | more
        return block


def silent(push: Push) -> bool:
    """Returns whether the device shows nothing."""
    return push.kind is not PushKind.ALERT


def with_token(draft: bytes, token: str, badge: int | None) -> bytes:
    """Returns the draft with its token and the number for the icon, which only the presend check returns.

    Android takes no number with a push that shows nothing: the app finds it in `data`.
    """
    message = json.loads(draft)["message"]
    if badge is not None:
        message["apns"]["payload"]["aps"]["badge"] = badge
        if "notification" not in message["android"]:
            message["data"]["badge"] = str(badge)
        elif badge:
            message["android"]["notification"]["notification_count"] = badge
    whole = {"message": {"token": token, **message}}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


def _byte_size(text: str) -> int:
    return len(text.encode())


def _json_size(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode()) - 2  # as pyfcm writes it


def _apns(push: Push, tag: str, *, high: bool) -> dict[str, Any]:
    """Returns the block for iPhones; the texts are those of the notification."""
    # to Apple, a push that changes the badge is no background push
    background = push.kind is PushKind.BACKGROUND
    headers = {
        "apns-priority": "10" if high else "5",
        "apns-push-type": "background" if background else "alert",
        "apns-collapse-id": clip(push.collapse_id or tag, _COLLAPSE_BYTES, _byte_size),
    }
    if push.expires_at is not None:
        headers["apns-expiration"] = str(int(push.expires_at.timestamp()))
    aps: dict[str, Any] = {"content-available": 1} if background else {}
    if not silent(push):
        aps["sound"] = "default"
    if push.thread_id is not None:
        aps["thread-id"] = push.thread_id
    if push.category is not None and not silent(push):
        aps["category"] = push.category
    return {"headers": headers, "payload": {"aps": aps}}


def _webpush(push: Push, tag: str, life: int | None, *, high: bool) -> dict[str, Any]:
    """Returns the block for browsers (RFC 8030), which open https addresses only."""
    headers = {"Urgency": "high" if high else "normal"}
    if life is not None:
        headers["TTL"] = str(life)
    if push.collapse_id and _TOPIC.fullmatch(push.collapse_id):
        headers["Topic"] = push.collapse_id
    block: dict[str, Any] = {"headers": headers}
    if not silent(push):
        block["notification"] = {"tag": push.collapse_id or tag}
        if (link := push.data.get("action_url", "")).startswith("https://"):
            block["fcm_options"] = {"link": link}
    return block


def _seconds(expires_at: datetime | None, now: datetime) -> int | None:
    if expires_at is None:
        return None
    return min(LONGEST_LIFE, max(0, int((expires_at - now).total_seconds())))


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


def classify(
    status: int, error_code: str | None, details: Sequence[str], retry_after: float | None
) -> SendResult:
    """Returns what a response means; `details` are the fields, reasons and texts of an error.

    A token is dead only by UNREGISTERED: a 404 without it is a wrong URL or project. A token that may belong to
    another app or sender is put in quarantine. Refused credentials and wrong settings of ours count as a failure of the
    provider and change no token. A quota of one device does not delay the others.
    """
    reason = f"fcm_{status}_{error_code.lower()}" if error_code else f"fcm_{status}"
    wait = max(SHORTEST_WAIT, retry_after or 0.0)
    if 200 <= status < 300:
        return SendResult(Sent(_name(details)))
    if status == 404 and error_code == "UNREGISTERED":
        return SendResult(Rejected(reason, address_dead=True))
    if status == 403 and error_code == "SENDER_ID_MISMATCH":
        return SendResult(Rejected(reason, quarantine=True))
    if status in {400, 413}:
        return _invalid_request(reason, details)
    if status == 429:
        return _over_quota(reason, details, retry_after)
    pause = wait if status == 503 and retry_after is not None else None
    return SendResult(Deferred(reason, wait), provider_failed=True, pause=pause)


def unreadable(status: int) -> SendResult:
    """Returns what a 2xx without FCM's JSON means: a proxy's page, or an accepted message."""
    return SendResult(
        Unknown(f"fcm_{status}_unreadable"), provider_failed=True, keep_connection=False
    )


def read(body: bytes) -> tuple[str | None, tuple[str, ...]] | None:
    """Returns error code and details of a response, or the name of the message; None if it is not from FCM."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # nested too deeply
        return None
    if not isinstance(fields, dict):
        return None
    if isinstance(name := fields.get("name"), str):
        return None, (name,)
    error = fields.get("error")
    if not isinstance(error, dict):
        return None
    entries = error.get("details")
    found = (
        [each for each in entries if isinstance(each, dict)] if isinstance(entries, list) else []
    )
    codes = [each.get("errorCode") for each in found] + [error.get("status")]
    code = next((each for each in codes if isinstance(each, str) and _CODE.fullmatch(each)), None)
    texts = [text for each in found for text in _texts(each)]
    return code, (*texts, str(error.get("message", ""))[:500])


def invalid_fields(details: Sequence[str]) -> list[str]:
    """Returns the invalid fields, which is all that may be logged of the details: a text may contain a token."""
    return [each for each in details if _FIELD.fullmatch(each)]


def _invalid_request(reason: str, details: Sequence[str]) -> SendResult:
    """Returns what a 400 means: an invalid payload, or an invalid token if nothing else is reported as invalid."""
    invalid = invalid_fields(details)
    reported = _TOKEN_FIELD in invalid or any(_TOKEN_TEXT.search(each) for each in details)
    of_token = reported and all(each == _TOKEN_FIELD for each in invalid)
    if of_token or _OTHER_APP & set(details):
        return SendResult(Rejected(f"{reason}_token", quarantine=True))
    return SendResult(Rejected(reason))


def _over_quota(reason: str, details: Sequence[str], retry_after: float | None) -> SendResult:
    """Returns what an exhausted quota means: that of the project, or that of a single device."""
    wait = max(SHORTEST_WAIT, QUOTA_WAIT if retry_after is None else retry_after)
    if any(_ONE_DEVICE.search(each) for each in details):
        return SendResult(Deferred(f"{reason}_device", wait))
    return SendResult(Deferred(reason, wait), pause=wait)


def _texts(detail: Mapping[str, Any]) -> Iterator[str]:
    """Yields the texts of one detail: the reason of an ApnsError or ErrorInfo, fields of a BadRequest, a quota."""
    kinds = ("fieldViolations", "violations")
    entries = [
        entry for kind in kinds for entry in detail.get(kind) or () if isinstance(entry, dict)
    ]
    for entry in (detail, *entries):
        for key in ("reason", "field", "subject", "description"):
            if isinstance(text := entry.get(key), str):
                yield text[:500]


def _name(details: Sequence[str]) -> str | None:
    """Returns FCM's own name for the message, if there is a valid one."""
    return next((each for each in details if _NAME.fullmatch(each)), None)
