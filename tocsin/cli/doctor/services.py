"""The checks of the settings, of the running services, and of the way from a browser to a stream."""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.metadata import version

import aiohttp

from tocsin.cli.doctor.examination import Examination, Finding, green, red, skipped, yellow
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
_EXPIRES_SOON = 14  # days
_UNBUFFERED = "Turn off buffering for /api/notifications/stream/ in the proxy (nginx: proxy_buffering off; gzip off)."


async def check_settings(examination: Examination) -> Iterable[Finding]:
    """Checks whether each TOCSIN_… variable can be used."""
    settings = examination.settings
    found = [
        red(sentence, "Correct it: docs/settings.md has each setting with an example.")
        for sentence in examination.wrong_settings
    ]
    names = [PREFIX + setting.name for setting in DECLARED]
    for unknown in settings.unknown:
        near = get_close_matches(unknown, names, 1)
        cure = (
            f"Did you mean {near[0]}?"
            if near
            else "Remove it, or correct its name: docs/settings.md has all."
        )
        found.append(yellow(f"{unknown} is no setting, and is ignored.", cure))
    return found or [
        green(
            f"Tocsin {version('tocsin')}, Python {sys.version.split()[0]}; each setting can be read."
        )
    ]


async def check_tokens(examination: Examination) -> Iterable[Finding]:
    """Checks whether people's tokens can be verified."""
    settings = examination.settings
    if not settings.jwt_algorithms:
        return [
            red(
                "No JWT key is set, so `tocsin serve` does not start.",
                "Set TOCSIN_JWT_SECRET, TOCSIN_JWT_PUBLIC_KEY or TOCSIN_JWKS_URL, whichever the host app signs with.",
            )
        ]
    if settings.jwks_url:
        try:
            # of no key: reads the set
            await KeySet(settings.jwks_url, ca_file=settings.ca_file).key(None)
        except Unavailable:
            return [
                red(
                    f"The key set at {settings.jwks_url} can't be read, so nobody can sign in.",
                    "Check TOCSIN_JWKS_URL, the network, and TOCSIN_CA_FILE for a private authority.",
                )
            ]
    if token := examination.options.token:
        try:
            await TokenVerifier(settings).verify(token)
        except Unauthorized as error:
            return [
                red(
                    f"The token of --token is refused: {one_line(error)}",
                    "Let the host app sign with the key, claims and algorithm that docs/http.md names.",
                )
            ]
        return [green("The token of --token is valid.")]
    algorithms = ", ".join(settings.jwt_algorithms)
    return [
        green(
            f"People's tokens are verified by {algorithms}; --token TOKEN tries one of the host app."
        )
    ]


async def check_processes(examination: Examination) -> Iterable[Finding]:
    """Checks whether services run, in this version, and what the operations page reports as a problem."""
    overview = await Overviews(examination.database).get("hour")
    found = [
        (red if each.severity == CRITICAL else yellow)(f"{each.what}: {each.detail}", each.cure)
        for each in overview.problems
    ]
    running = [each for each in await processes(examination.database) if not each.silent]
    if not any(each.kind == "serve" for each in running):
        found.append(
            yellow(
                "No HTTP process is running: people see neither inbox nor badge.",
                "Start `tocsin serve`.",
            )
        )
    if other := sorted({each.version for each in running} - {version("tocsin")}):
        found.append(
            yellow(
                f"Processes of version {', '.join(other)} are running beside this version, {version('tocsin')}.",
                "Restart them with one version, after `tocsin migrate`.",
            )
        )
    kinds = ", ".join(
        f"{sum(each.kind == kind for each in running)} {kind}"
        for kind in sorted({each.kind for each in running})
    )
    return found or [green(f"{kinds} running, with a leader; nothing is late.")]


async def check_stream(examination: Examination) -> Iterable[Finding]:
    """Checks whether a stream through the public URL arrives at once."""
    settings = examination.settings
    if settings.public_url is None:
        return [
            red(
                "TOCSIN_PUBLIC_URL is not set, so `tocsin serve` does not start.",
                "Set it to the address that people see, such as https://notify.example.com.",
            )
        ]
    url = settings.public_url
    found = []
    if url.startswith("http://") and not is_loopback(url.split("/")[2].rsplit(":", 1)[0]):
        found.append(
            yellow(
                f"The public URL {url} is not https: tokens can be read on the way.",
                "Put a proxy with a certificate in front, and set TOCSIN_PUBLIC_URL to its https address.",
            )
        )
    try:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0)
        async with aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(ssl=_context(settings))
        ) as http:
            found += await _try_ready(http, url) or await _try_stream(http, url, examination)
    except aiohttp.ClientConnectorCertificateError as error:
        reason = getattr(error.certificate_error, "verify_message", "") or one_line(
            error.certificate_error
        )
        found.append(
            red(
                f"The certificate of {url} is refused: {reason}.",
                "Renew it, with its chain, for this host name; or let TOCSIN_CA_FILE name a private authority.",
            )
        )
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        found.append(
            red(
                f"{url} can't be reached from here: {one_line(error) or 'timeout'}.",
                "Start `tocsin serve`, and check TOCSIN_PUBLIC_URL, its DNS, the proxy and the firewall.",
            )
        )
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
        return [
            red(
                f"{url} redirects to {response.headers.get('Location', '?')}.",
                "Set TOCSIN_PUBLIC_URL to the address that people end at.",
            )
        ]
    if is_json and response.status == 503:
        return [
            red(
                f"The service is not ready: {body.strip()[:200]}",
                "See the other checks, and the log of `tocsin serve`.",
            )
        ]
    if response.status in (502, 503, 504):
        return [
            red(
                f"The proxy of {url} has no service behind it (status {response.status}).",
                "Start `tocsin serve`, and check the proxy's upstream.",
            )
        ]
    return [
        red(
            f"{url}/readyz is not Tocsin's: status {response.status}, {response.content_type}.",
            "Set TOCSIN_PUBLIC_URL to the service, with its path prefix; the proxy must pass on all paths below it.",
        )
    ]


async def _try_stream(
    http: aiohttp.ClientSession, url: str, examination: Examination
) -> list[Finding]:
    """Opens a stream as a browser does."""
    try:
        token = examination.options.token or _signed(examination.settings)
    except SettingsError:
        return [
            skipped(
                "The stream was not tried: only the host app can sign tokens. Pass one by --token."
            )
        ]
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
        return [
            red(
                f"A stream has no first bytes within {_FIRST_BYTES_WITHIN:.0f} s: something between buffers it.",
                _UNBUFFERED,
            )
        ]


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
        return red(
            "The service refuses a token that is signed with these settings.",
            "Give `tocsin serve` and this command the same TOCSIN_JWT_… settings; let the proxy pass on Authorization.",
        )
    return red(
        f"The stream has the status {response.status} and the type {response.content_type}.",
        "See the log of `tocsin serve`; the proxy must pass on the response unchanged.",
    )


async def _judge_stream(
    response: aiohttp.ClientResponse, took: float, examination: Examination
) -> list[Finding]:
    found = []
    if encoding := response.headers.get("Content-Encoding"):
        found.append(
            yellow(
                f"The stream is compressed ({encoding}) on the way, which delays its events.",
                _UNBUFFERED,
            )
        )
    if took > _FIRST_BYTES_LATE:
        found.append(yellow(f"The first bytes of a stream took {took:.1f} s.", _UNBUFFERED))
    if (days := _days_left(response)) is not None and days < _EXPIRES_SOON:
        found.append(
            yellow(
                f"The certificate of {examination.settings.public_url} expires in {days} days.",
                "Renew it; check the timer that should.",
            )
        )
    if examination.options.wait_for_heartbeat:
        try:
            async with asyncio.timeout(_HEARTBEAT_WITHIN):
                ended = await response.content.readany() == b""
        except TimeoutError:
            ended = True
        if ended:
            found.append(
                red(
                    "The stream was cut, or its heartbeat did not arrive within 20 s.",
                    "Allow a minute without bytes in the proxy (nginx: proxy_read_timeout 60s).",
                )
            )
    return found or [
        green(
            f"A stream through {examination.settings.public_url} has its first bytes after {took * 1000:.0f} ms."
        )
    ]


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
