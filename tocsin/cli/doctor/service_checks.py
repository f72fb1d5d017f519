"""The checks of the settings, of the running services, and of the way from a browser to a stream."""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.metadata import version

import aiohttp

from tocsin.cli.doctor.examination import Examination, Finding, finding
from tocsin.engine.model import Unavailable
from tocsin.engine.ops.overview import Overviews
from tocsin.engine.ops.problems import CRITICAL
from tocsin.engine.store.connection import one_line
from tocsin.engine.store.installation import processes
from tocsin.http.errors import Unauthorized
from tocsin.http.tokens import KeySet, TokenVerifier
from tocsin.settings import DECLARED, PREFIX, Settings, SettingsError
from tocsin.settings.addresses import is_loopback
from tocsin.settings.running_instance import development_key, sign_token

_PERSON = "tocsin-doctor"  # has no notification, and reading creates nobody
_FIRST_BYTES_WITHIN = 5.0  # seconds
_FIRST_BYTES_LATE = 1.0
_HEARTBEAT_WITHIN = 20.0  # a comment comes each 15 s
EXPIRES_SOON = 14  # days


async def check_settings(examination: Examination) -> Iterable[Finding]:
    """Checks whether each TOCSIN_… variable can be used."""
    settings = examination.settings
    found = [finding("settings.wrong", error=error) for error in examination.wrong_settings]
    names = [PREFIX + setting.name for setting in DECLARED]
    for unknown in settings.unknown:
        if near := get_close_matches(unknown, names, 1):
            found.append(finding("settings.similar", name=unknown, near=near[0]))
        else:
            found.append(finding("settings.unknown", name=unknown))
    python = sys.version.split()[0]
    return found or [finding("settings.right", version=version("tocsin"), python=python)]


async def check_tokens(examination: Examination) -> Iterable[Finding]:
    """Checks whether people's tokens can be verified."""
    settings = examination.settings
    if not settings.jwt_algorithms:
        return [finding("tokens.no_key")]
    if settings.jwks_url:
        try:
            # of no key: reads the set
            await KeySet(settings.jwks_url, ca_file=settings.ca_file).key(None)
        except Unavailable:
            return [finding("tokens.no_key_set", url=settings.jwks_url)]
    if token := examination.options.token:
        try:
            await TokenVerifier(settings).verify(token)
        except Unauthorized as error:
            return [finding("tokens.refused", error=one_line(error))]
        return [finding("tokens.valid")]
    return [finding("tokens.right", algorithms=", ".join(settings.jwt_algorithms))]


async def check_services(examination: Examination) -> Iterable[Finding]:
    """Checks whether services run, in this version, and what the operations page reports as a problem."""
    overview = await Overviews(examination.database).get("hour")
    found = [
        Finding(
            "red" if each.severity == CRITICAL else "yellow",
            f"{each.what}: {each.detail}",
            each.cure,
        )
        for each in overview.problems
    ]
    running = [each for each in await processes(examination.database) if not each.silent]
    kinds = Counter(each.kind for each in running)
    if not kinds["serve"]:
        found.append(finding("services.no_serve"))
    if others := sorted({each.version for each in running} - {version("tocsin")}):
        found.append(
            finding("services.versions", others=", ".join(others), version=version("tocsin"))
        )
    named = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
    return found or [finding("services.right", kinds=named)]


async def check_stream(examination: Examination) -> Iterable[Finding]:
    """Checks whether a stream through the public URL arrives at once."""
    settings = examination.settings
    if settings.public_url is None:
        return [finding("stream.no_url")]
    url = settings.public_url
    found = []
    if url.startswith("http://") and not is_loopback(url.split("/")[2].rsplit(":", 1)[0]):
        found.append(finding("stream.not_https", url=url))
    try:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0)
        async with aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(ssl=_context(settings))
        ) as http:
            found += await _try_ready(http, url) or await _try_stream(http, url, examination)
    except aiohttp.ClientConnectorCertificateError as error:
        cause = error.certificate_error
        reason = getattr(cause, "verify_message", "") or one_line(cause)
        found.append(finding("stream.certificate", url=url, reason=reason))
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        found.append(finding("stream.unreachable", url=url, reason=one_line(error) or "timeout"))
    return found


def _context(settings: Settings) -> ssl.SSLContext:
    """Trusts what browsers trust, and what TOCSIN_CA_FILE names."""
    context = ssl.create_default_context()
    if settings.ca_file:
        context.load_verify_locations(settings.ca_file)
    return context


async def _try_ready(http: aiohttp.ClientSession, url: str) -> list[Finding]:
    """Returns what keeps the service from being ready; empty if it is."""
    async with asyncio.timeout(10.0), http.get(f"{url}/readyz", allow_redirects=False) as response:
        body = (await response.content.read(4096)).decode("utf-8", "replace")
        is_json = "json" in response.content_type
    if response.status == 200 and is_json:
        return []
    if 300 <= response.status < 400:
        location = response.headers.get("Location", "?")
        return [finding("stream.redirects", url=url, location=location)]
    if is_json and response.status == 503:
        return [finding("stream.not_ready", body=body.strip()[:200])]
    if response.status in (502, 503, 504):
        return [finding("stream.no_service", url=url, status=response.status)]
    type_ = response.content_type
    return [finding("stream.foreign", url=url, status=response.status, content_type=type_)]


async def _try_stream(
    http: aiohttp.ClientSession, url: str, examination: Examination
) -> list[Finding]:
    """Opens a stream as a browser does."""
    try:
        token = examination.options.token or _signed(examination.settings)
    except SettingsError:
        return [finding("stream.not_tried")]
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
    started = time.monotonic()
    try:
        async with asyncio.timeout(_FIRST_BYTES_WITHIN + 5.0):
            response = await http.get(
                f"{url}/api/notifications/stream/", headers=headers, allow_redirects=False
            )
        async with response:
            if response.status != 200 or response.content_type != "text/event-stream":
                return [_refused(response)]
            async with asyncio.timeout(_FIRST_BYTES_WITHIN):
                await response.content.readany()
            return await _judge_stream(response, time.monotonic() - started, examination)
    except TimeoutError:
        return [finding("stream.buffered", limit=_FIRST_BYTES_WITHIN)]


def _signed(settings: Settings) -> str:
    return sign_token(
        settings,
        _PERSON,
        development_key=None
        if settings.jwt_public_key or settings.jwks_url
        else development_key(settings.data_dir),
    )


def _refused(response: aiohttp.ClientResponse) -> Finding:
    if response.status == 401:
        return finding("stream.refused")
    return finding("stream.changed", status=response.status, content_type=response.content_type)


async def _judge_stream(
    response: aiohttp.ClientResponse, took: float, examination: Examination
) -> list[Finding]:
    url = examination.settings.public_url
    found = []
    if encoding := response.headers.get("Content-Encoding"):
        found.append(finding("stream.compressed", encoding=encoding))
    if took > _FIRST_BYTES_LATE:
        found.append(finding("stream.late", seconds=took))
    if (days := _days_left(response)) is not None and days < EXPIRES_SOON:
        found.append(finding("stream.expires", url=url, days=days))
    if examination.options.wait_for_heartbeat:
        try:
            async with asyncio.timeout(_HEARTBEAT_WITHIN):
                ended = await response.content.readany() == b""
        except TimeoutError:
            ended = True
        if ended:
            found.append(finding("stream.cut", limit=_HEARTBEAT_WITHIN))
    return found or [finding("stream.right", url=url, ms=took * 1000)]


def _days_left(response: aiohttp.ClientResponse) -> int | None:
    transport = response.connection.transport if response.connection else None
    certificate = transport.get_extra_info("peercert") if transport else None
    return days_left(certificate)


def days_left(certificate: dict[str, object] | None) -> int | None:
    """Returns the days until a certificate expires; None without one."""
    if not certificate or "notAfter" not in certificate:
        return None
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
    return (ends - datetime.now(UTC)).days
