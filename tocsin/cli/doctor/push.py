"""The checks of APNs and FCM: they authenticate with a push to a device that does not exist."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterable
from uuid import uuid4

import aiohttp
from google.oauth2.service_account import Credentials

from tocsin.cli.doctor.examination import Examination, Finding, green, red, skipped, yellow
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
from tocsin.settings.keys import ApnsKey

_NOBODY = "0" * 64  # a device that does not exist: refused after everything else was accepted
_CHECK_KEY = "Check TOCSIN_APNS_KEY, TOCSIN_APNS_KEY_ID and TOCSIN_APNS_TEAM_ID against Apple's developer account."
_CHECK_ACCOUNT = "Check TOCSIN_FCM_SERVICE_ACCOUNT: the account must be of the app's project, with the role to send."
_NETWORK = "Check the network, TOCSIN_CA_FILE and the provider's URL."


async def check_apns(examination: Examination) -> Iterable[Finding]:
    """Connects to APNs, and has its answer to a push for a device that does not exist."""
    settings = examination.settings
    if settings.apns is None:
        return [skipped("Not set: TOCSIN_APNS_KEY.")]
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
        reason = str(error)
        return red(
            f"{url} can't be used: {meaning_and_cure(reason)[0] or reason} ({reason})",
            meaning_and_cure(reason)[1] or _NETWORK,
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
        return red(
            "No token for APNs can be had from the database.",
            "See the other checks of the database.",
        )
    finally:
        connection.close()
    if not isinstance(response, ApnsResponse):
        return red(f"{url} did not respond: {response.reason}.", _NETWORK)
    return _judge_apns(url, response)


def _judge_apns(url: str, response: ApnsResponse) -> Finding:
    kind = refusal_kind(response.status, response.reason)
    what = f"{url} responds {response.status} {response.reason}".rstrip()
    if kind is RefusalKind.CREDENTIALS:
        clock = (
            " The clock of this machine may be wrong, too."
            if response.reason == "ExpiredProviderToken"
            else ""
        )
        return red(f"{what}: it refuses the key.", _CHECK_KEY + clock)
    if kind is RefusalKind.SETTING:
        return red(
            f"{what}: it refuses the topic.",
            "Set TOCSIN_APNS_TOPIC to the app's bundle id; the key must be allowed for it.",
        )
    if kind is RefusalKind.SERVER:
        return yellow(
            f"{what}: it is out of order.",
            "Wait: deliveries are deferred. Apple's system status page has more.",
        )
    return green(f"{url} accepts the key.")


async def check_fcm(examination: Examination) -> Iterable[Finding]:
    """Gets an access token, and FCM's answer to a push for a device that does not exist."""
    settings = examination.settings
    if settings.fcm_service_account is None:
        return [skipped("Not set: TOCSIN_FCM_SERVICE_ACCOUNT.")]
    account = settings.fcm_service_account
    credentials = Credentials.from_service_account_info(account, scopes=[SCOPE])
    context = ssl.create_default_context(cafile=settings.ca_file)
    access = AccessToken(credentials, context=context, timeout=8.0)
    try:
        if failure := await access.ready():
            return [
                red(
                    f"{account['token_uri']} gives no access token ({failure.reason}).",
                    f"{_CHECK_ACCOUNT} Was its key deleted? Is this machine's clock right?",
                )
            ]
        return [await _try_fcm(settings, str(account["project_id"]), access.current or "", context)]
    except (aiohttp.ClientError, OSError) as error:
        return [red(f"{settings.fcm_url} can't be reached: {one_line(error)}.", _NETWORK)]
    finally:
        await access.close()


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
        return red(
            f"{settings.fcm_url} responds {response.status} with what is not FCM's.",
            "Check TOCSIN_FCM_URL, and the proxy between.",
        )
    outcome = classify(response.status, *found, None).outcome
    if not isinstance(outcome, Deferred):  # accepted, or the device alone was refused
        return green(f"{settings.fcm_url} accepts the account for the project {project}.")
    if response.status >= 500 or response.status == 429:
        return yellow(
            f"{settings.fcm_url} is out of order ({outcome.reason}).",
            "Wait: deliveries are deferred.",
        )
    return red(
        f"{settings.fcm_url} refuses the account for the project {project} ({outcome.reason}).",
        _CHECK_ACCOUNT,
    )
