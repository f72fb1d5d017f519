"""The checks of mail and push: the mail server, the templates, the sender's domain in DNS; APNs, FCM and Web Push.

APNs and FCM authenticate a push to a device that does not exist; Web Push has settings alone.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Iterable
from email.utils import parseaddr
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import dns.asyncresolver
import dns.exception
import dns.resolver
import idna
from aiosmtplib import SMTP, SMTPException, SMTPResponseException
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.oauth2.service_account import Credentials

from tocsin.cli.doctor.examination import TEXTS, Examination, Finding, finding
from tocsin.cli.doctor.service_checks import EXPIRES_SOON, days_left
from tocsin.engine.actors.apns import PRODUCTION_URL, SANDBOX_URL
from tocsin.engine.actors.apns_connection import ConnectError, Endpoint, Request, connect
from tocsin.engine.actors.apns_reply import ApnsResponse, RefusalKind, refusal_kind
from tocsin.engine.actors.apns_token import (
    MemoryStore,
    ProviderKey,
    ProviderToken,
    TokenUnavailable,
)
from tocsin.engine.actors.email_reply import Step
from tocsin.engine.actors.email_smtp import SmtpSession, failure_reason
from tocsin.engine.actors.fcm import classify, read
from tocsin.engine.actors.fcm_token import SCOPE, AccessToken
from tocsin.engine.explain.reasons import meaning_and_cure
from tocsin.engine.mail.samples import sample_types
from tocsin.engine.mail.template_check import check
from tocsin.engine.model import Deferred
from tocsin.engine.store.connection import one_line
from tocsin.engine.store.installation import SharedTokens
from tocsin.settings import Settings
from tocsin.settings.addresses import SmtpServer, is_loopback, is_untampered
from tocsin.settings.keys import ApnsKey, load_dkim_key

_SMALLEST = 1_000_000  # bytes of a mail that a server should take
_LOCAL = (".localhost", ".local", ".internal", ".test", ".example", ".invalid")
_EXAMPLES = ("example.com", "example.net", "example.org")
_CURES = {
    Step.CONNECT: "Correct host and port in TOCSIN_SMTP_URL; where port 25 is blocked, use 587, or smtps:// with 465.",
    Step.TLS: "Use ?starttls=auto, or smtps:// for port 465; let TOCSIN_CA_FILE name a private authority.",
    Step.AUTH: "Correct user and password in TOCSIN_SMTP_URL, with special characters percent-encoded.",
}


async def check_smtp(examination: Examination) -> Iterable[Finding]:
    """Connects to each mail server, encrypts, logs in and offers the sender, as a worker does; sends nothing."""
    settings = examination.settings
    if not settings.smtp_servers:
        return [finding("smtp.not_set")]
    tried = await asyncio.gather(*(_try(server, settings) for server in settings.smtp_servers))
    return [each for found in tried for each in found]


async def _try(server: SmtpServer, settings: Settings) -> list[Finding]:
    context = ssl.create_default_context(cafile=settings.ca_file)
    session = SmtpSession(
        SMTP(
            hostname=server.host,
            port=server.port,
            use_tls=server.tls,
            start_tls=False,
            tls_context=context,
            timeout=8.0,
        )
    )
    where = server.address
    try:
        return await _talk(session, server, settings, where)
    except SMTPResponseException as error:
        text = " ".join(error.message.split())
        cure = _cure(session.step, f"smtp_{error.code}")
        return [
            finding(
                "smtp.refuses",
                where=where,
                step=session.step,
                code=error.code,
                text=text,
                cure=cure,
            )
        ]
    except (SMTPException, OSError) as error:
        reason = f"smtp_{failure_reason(session.step, error)}"
        name = "smtp.certificate" if _is_of_certificate(error) else "smtp.unusable"
        cure = _cure(session.step, reason)
        return [finding(name, where=where, error=one_line(error), reason=reason, cure=cure)]
    finally:
        session.smtp.close()


def _is_of_certificate(error: BaseException | None) -> bool:
    """Returns whether the server's certificate was refused, which may be the cause of an error of the library."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None


def _cure(step: Step, reason: str) -> str:
    return _CURES.get(step) or meaning_and_cure(reason)[1] or "See the mail server's log."


async def _talk(
    session: SmtpSession, server: SmtpServer, settings: Settings, where: str
) -> list[Finding]:
    smtp = session.smtp
    await session.open(server.starttls)
    local = is_loopback(server.host)
    if server.username is not None:
        if not session.encrypted and not local and server.starttls != "never":
            return [finding("smtp.no_tls", where=where)]
        await session.log_in(server.username, server.password or "")
    session.step = Step.MAIL
    await smtp.mail(parseaddr(settings.email_from)[1])
    await smtp.rset()
    size = smtp.esmtp_extensions.get("size", "").strip()
    certificate = smtp.get_transport_info("peercert")
    encrypted = session.encrypted
    await smtp.quit()
    found = []
    if not encrypted and not local:
        found.append(finding("smtp.unencrypted", where=where))
    if size.isdigit() and 0 < int(size) < _SMALLEST:
        found.append(finding("smtp.small", where=where, size=int(size)))
    if (days := days_left(certificate)) is not None and days < EXPIRES_SOON:
        found.append(finding("smtp.expires", where=where, days=days))
    how = ("with TLS" if encrypted else "without TLS") + (", logged in" if server.username else "")
    return found or [finding("smtp.right", where=where, sender=settings.email_from, how=how)]


async def check_templates(examination: Examination) -> Iterable[Finding]:
    """Compiles and renders each mail template with sample data."""
    problems = await asyncio.to_thread(
        check, examination.settings.templates_dir, sample_types(None)
    )
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        return [finding("templates.wrong", problems="; ".join(map(str, problems[:3])) + more)]
    return [finding("templates.right")]


async def check_dns(examination: Examination) -> Iterable[Finding]:
    """Looks up the sender's domain: MX, SPF, DKIM and DMARC."""
    settings = examination.settings
    if not settings.smtp_servers:
        return [finding("dns.no_mail")]
    domain = parseaddr(settings.email_from)[1].rpartition("@")[2]
    if domain.endswith(_LOCAL) or domain in _EXAMPLES or "." not in domain:
        return [finding("dns.not_public", domain=domain)]
    ask = _Asking(examination.options.dns_server)
    try:
        return await _check_domain(ask, idna.encode(domain).decode(), settings)
    except dns.exception.Timeout:
        reason = "no resolver responds"
    except (dns.exception.DNSException, OSError) as error:
        reason = one_line(error)
    return [finding("dns.no_resolver", reason=reason)]


class _Asking:
    """Asks the system's resolvers, or the one that is named."""

    def __init__(self, server: str | None) -> None:
        self._resolver = dns.asyncresolver.Resolver(configure=server is None)
        self._resolver.lifetime = 5.0
        if server is not None:
            host, _, port = server.rpartition(":") if server.count(":") == 1 else (server, "", "")
            self._resolver.nameservers = [host]
            self._resolver.port = int(port or 53)

    async def texts(self, name: str, kind: str) -> list[str]:
        """Returns the records of a name, each in one piece; none where there are none. Raises DNSException."""
        try:
            answer = await self._resolver.resolve(name, kind)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        if kind != "TXT":
            return [str(each) for each in answer]
        return [b"".join(each.strings).decode("utf-8", "replace") for each in answer]


async def _check_domain(ask: _Asking, domain: str, settings: Settings) -> list[Finding]:
    found = []
    if not any([await ask.texts(domain, kind) for kind in ("MX", "A", "AAAA")]):
        found.append(finding("dns.no_address", domain=domain))
    texts = await ask.texts(domain, "TXT")
    spf = [each for each in texts if each.lower().split(" ")[0] == "v=spf1"]
    found += _judge_spf(domain, spf)
    found += await _check_dkim(ask, settings)
    found += await _check_dmarc(ask, domain)
    if not spf and settings.dkim is None:
        found.append(finding("dns.nothing", domain=domain))
    return found or [finding("dns.right", domain=domain)]


def _judge_spf(domain: str, records: list[str]) -> Iterable[Finding]:
    if len(records) > 1:
        yield finding("dns.several_spf", domain=domain, number=len(records))
    elif not records:
        yield finding("dns.no_spf", domain=domain)
    elif records[0].rstrip().endswith(("+all", " all")):
        yield finding("dns.open_spf", domain=domain)


async def _check_dkim(ask: _Asking, settings: Settings) -> list[Finding]:
    key = settings.dkim
    if key is None:
        return [finding("dns.unsigned")]
    name = f"{key.selector}._domainkey.{key.domain}"
    records = await ask.texts(name, "TXT")
    public = load_dkim_key(key.pem).public_key()
    if isinstance(public, Ed25519PublicKey):
        raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    else:
        raw = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    expected = base64.b64encode(raw).decode()
    if not records:
        kind = "ed25519" if isinstance(public, Ed25519PublicKey) else "rsa"
        return [finding("dns.no_dkim", name=name, kind=kind, key=expected)]
    fields = dict(part.strip().split("=", 1) for part in records[0].split(";") if "=" in part)
    if "".join(fields.get("p", "").split()) != expected:
        return [finding("dns.other_dkim", name=name, key=expected)]
    return []


async def _check_dmarc(ask: _Asking, domain: str) -> list[Finding]:
    # the domain's own, or that of a domain above it
    labels = domain.split(".")
    for start in range(len(labels) - 1):
        records = await ask.texts("_dmarc." + ".".join(labels[start:]), "TXT")
        if any(each.replace(" ", "").lower().startswith("v=dmarc1;") for each in records):
            return []
    return [finding("dns.no_dmarc", domain=domain)]


_NOBODY = "0" * 64  # a device that does not exist: refused after everything else was accepted


async def check_apns(examination: Examination) -> Iterable[Finding]:
    """Connects to APNs, and returns its response to a push for a device that does not exist."""
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
    """Gets an access token, and FCM's response to a push for a device that does not exist."""
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
