"""The checks of push: APNs and FCM authenticate a push to a device that does not exist; Web Push has settings alone."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterable
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
from google.oauth2.service_account import Credentials

from tocsin.cli.doctor.examination import TEXTS, Examination, Finding, finding
from tocsin.engine.actors.apns.actor import PRODUCTION_URL, SANDBOX_URL
from tocsin.engine.actors.apns.connection import Request
from tocsin.engine.actors.apns.pool import ConnectError, Endpoint, connect
from tocsin.engine.actors.apns.provider_token import (
    MemoryStore,
    ProviderKey,
    ProviderToken,
    TokenUnavailable,
)
from tocsin.engine.actors.apns.reply import ApnsResponse, RefusalKind, refusal_kind
from tocsin.engine.actors.fcm.access_token import SCOPE, AccessToken
from tocsin.engine.actors.fcm.reply import classify, read
from tocsin.engine.explain.reasons import meaning_and_cure
from tocsin.engine.model import Deferred
from tocsin.engine.store.connection import one_line
from tocsin.engine.store.installation import SharedTokens
from tocsin.settings import Settings
from tocsin.settings.addresses import is_untampered
from tocsin.settings.keys import ApnsKey

_NOBODY = "0" * 64  # a device that does not exist: refused after everything else was accepted


async def check_apns(examination: Examination) -> Iterable[Finding]:
    """Connects to APNs, and has its answer to a push for a device that does not exist."""
    settings = examination.settings
    if settings.apns is None:
        return [finding("apns.not_set")]
    # workers share one token, of which Apple accepts a new one every 20 minutes
    store = SharedTokens(examination.database) if examination.migrated else MemoryStore()
    key = ProviderKey(
        pem=settings.apns.pem, key_id=settings.apns.key_id, team_id=settings.apns.team_id
    )
    tokens = ProviderToken(key, store)
    context = ssl.create_default_context(cafile=settings.apns_ca_file or settings.ca_file)
    context.set_alpn_protocols(["h2"])
    urls = (settings.apns_url,) if settings.apns_url else (PRODUCTION_URL, SANDBOX_URL)
    return [await _try_apns(url, context, settings.apns, tokens) for url in urls]


async def _try_apns(
    url: str, context: ssl.SSLContext, key: ApnsKey, tokens: ProviderToken
) -> Finding:
    try:
        connection = await connect(Endpoint(url=url, tls=context, connect=8.0), lambda: None)
    except ConnectError as error:
        if refused := await _refused_certificate(url, context):
            return finding("apns.certificate", url=url, reason=refused)
        reason = str(error)
        meaning, cure = meaning_and_cure(reason)
        return finding(
            "apns.unusable",
            url=url,
            meaning=meaning or reason,
            reason=reason,
            cure=cure or TEXTS["apns"]["silent"]["cure"],
        )
    headers = (
        ("apns-topic", key.topic),
        ("apns-push-type", "background"),
        ("apns-priority", "5"),
        ("apns-expiration", "0"),
        ("apns-id", str(uuid4())),
    )
    try:
        response = await connection.send(
            Request(_NOBODY, headers, b'{"aps":{"content-available":1}}'),
            await tokens.token(),
            timeout=8.0,
        )
    except TokenUnavailable:
        return finding("apns.no_token")
    finally:
        connection.close()
    if not isinstance(response, ApnsResponse):
        return finding("apns.silent", url=url, reason=response.reason)
    return _judge_apns(url, response)


async def _refused_certificate(url: str, context: ssl.SSLContext) -> str | None:
    """Returns why the certificate of a server is refused; None if that is not so."""
    address = urlsplit(url)
    try:
        async with asyncio.timeout(8.0):
            _, writer = await asyncio.open_connection(
                address.hostname, address.port or 443, ssl=context
            )
        writer.close()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except (OSError, TimeoutError):
        return None
    return None


def _judge_apns(url: str, response: ApnsResponse) -> Finding:
    kind = refusal_kind(response.status, response.reason)
    what = f"{url} responds {response.status} {response.reason}".rstrip()
    if kind is RefusalKind.CREDENTIALS:
        expired = response.reason == "ExpiredProviderToken"
        return finding("apns.expired" if expired else "apns.key", what=what)
    if kind is RefusalKind.SETTING:
        return finding("apns.topic", what=what)
    if kind is RefusalKind.SERVER:
        return finding("apns.out_of_order", what=what)
    return finding("apns.right", url=url)


async def check_web_push(examination: Examination) -> Iterable[Finding]:
    """Compares the settings with what push services and browsers accept: no push service is the right one to ask."""
    settings = examination.settings
    if settings.vapid is None:
        return [finding("web_push.not_set")]
    found = []
    if settings.vapid.subject.endswith("@localhost"):
        found.append(finding("web_push.subject", subject=settings.vapid.subject))
    if settings.public_url and not is_untampered(settings.public_url):
        found.append(finding("web_push.http", url=settings.public_url))
    return found or [finding("web_push.right", subject=settings.vapid.subject)]


async def check_fcm(examination: Examination) -> Iterable[Finding]:
    """Gets an access token, and FCM's answer to a push for a device that does not exist."""
    settings = examination.settings
    if settings.fcm_service_account is None:
        return [finding("fcm.not_set")]
    account = settings.fcm_service_account
    credentials = Credentials.from_service_account_info(account, scopes=[SCOPE])
    context = ssl.create_default_context(cafile=settings.ca_file)
    access = AccessToken(credentials, context=context, timeout=8.0)
    try:
        if failure := await access.ready():
            return [await _without_token(str(account["token_uri"]), failure.reason, context)]
        return [await _try_fcm(settings, str(account["project_id"]), access.current or "", context)]
    except (aiohttp.ClientError, OSError) as error:
        if refused := await _refused_certificate(settings.fcm_url, context):
            return [finding("fcm.certificate", url=settings.fcm_url, reason=refused)]
        return [finding("fcm.unreachable", url=settings.fcm_url, error=one_line(error))]
    finally:
        await access.close()


async def _without_token(url: str, reason: str, context: ssl.SSLContext) -> Finding:
    if reason == "fcm_token_refused":
        return finding("fcm.no_token", url=url, reason=reason)
    if refused := await _refused_certificate(url, context):
        return finding("fcm.certificate", url=url, reason=refused)
    return finding("fcm.no_connection", url=url, reason=reason)


async def _try_fcm(
    settings: Settings, project: str, token: str, context: ssl.SSLContext
) -> Finding:
    url = f"{settings.fcm_url.rstrip('/')}/v1/projects/{project}/messages:send"
    body = json.dumps(
        {"validate_only": True, "message": {"token": "tocsin-doctor", "data": {"check": "1"}}}
    )
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    timeout = aiohttp.ClientTimeout(total=8.0)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), timeout=timeout) as http,
        http.post(url, data=body, headers=headers, allow_redirects=False) as response,
    ):
        text = await response.content.read(65_536)
    found = read(text)
    if found is None:
        return finding("fcm.foreign", url=settings.fcm_url, status=response.status)
    outcome = classify(response.status, *found, None).outcome
    if not isinstance(outcome, Deferred):  # accepted, or the device alone was refused
        return finding("fcm.right", url=settings.fcm_url, project=project)
    if response.status >= 500 or response.status == 429:
        return finding("fcm.out_of_order", url=settings.fcm_url, reason=outcome.reason)
    return finding("fcm.refused", url=settings.fcm_url, project=project, reason=outcome.reason)
