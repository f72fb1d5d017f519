"""The checks of mail: the server, the templates, and the sender's domain in DNS."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Iterable
from email.utils import parseaddr

import dns.asyncresolver
import dns.exception
import dns.resolver
import idna
from aiosmtplib import SMTP, SMTPException, SMTPResponseException
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tocsin.cli.doctor.examination import Examination, Finding, green, red, skipped, yellow
from tocsin.cli.doctor.services import days_left
from tocsin.engine.actors.email.reply import Step
from tocsin.engine.actors.email.smtp import SmtpSession, failure_reason
from tocsin.engine.explain.reasons import meaning_and_cure
from tocsin.engine.mail.samples import sample_types
from tocsin.engine.mail.template_check import check
from tocsin.engine.store.connection import one_line
from tocsin.settings import Settings, SmtpServer
from tocsin.settings.addresses import is_loopback
from tocsin.settings.keys import load_dkim_key

_SMALLEST = 1_000_000  # bytes of a mail that a server should take
_EXPIRES_SOON = 14  # days
_LOCAL = (".localhost", ".local", ".internal", ".test", ".example", ".invalid")
_EXAMPLES = ("example.com", "example.net", "example.org")
_CURES = {
    Step.CONNECT: "Correct host and port in TOCSIN_SMTP_URL; where port 25 is blocked, use 587, or smtps:// with 465.",
    Step.TLS: "Use ?starttls=auto, or smtps:// for port 465; let TOCSIN_CA_FILE name a private authority.",
    Step.AUTH: "Correct user and password in TOCSIN_SMTP_URL, with special characters percent-encoded.",
}
_CERTIFICATE = "Renew the mail server's certificate, for this host name; let TOCSIN_CA_FILE name a private authority."


async def check_smtp(examination: Examination) -> Iterable[Finding]:
    """Connects to the mail server, encrypts, logs in and offers the sender, as a worker does; sends nothing."""
    settings = examination.settings
    server = settings.smtp
    if server is None:
        return [
            yellow(
                "TOCSIN_SMTP_URL is not set: email is off, with the reason no_provider.",
                "Set it, unless your app sends no mail by Tocsin.",
            )
        ]
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
    where = f"{server.host}:{server.port}"
    try:
        return await _talk(session, server, settings, where)
    except SMTPResponseException as error:
        text = " ".join(error.message.split())
        return [
            red(
                f"The mail server {where} refuses at {session.step}: {error.code} {text}.",
                _cure(session.step, f"smtp_{error.code}"),
            )
        ]
    except (SMTPException, OSError) as error:
        reason = f"smtp_{failure_reason(session.step, error)}"
        cure = _CERTIFICATE if _is_of_certificate(error) else _cure(session.step, reason)
        return [red(f"The mail server {where} can't be used: {one_line(error)} ({reason}).", cure)]
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
            return [
                red(f"{where} offers no TLS, and no password is sent without it.", _CURES[Step.TLS])
            ]
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
        found.append(
            yellow(
                f"Mails go to {where} without TLS.",
                "Use a server with STARTTLS, or smtps://, and ?starttls=always.",
            )
        )
    if size.isdigit() and 0 < int(size) < _SMALLEST:
        found.append(
            yellow(
                f"{where} takes mails of at most {int(size):,} bytes.",
                "Raise the limit of the server to 1 MB or more.",
            )
        )
    if (days := days_left(certificate)) is not None and days < _EXPIRES_SOON:
        found.append(
            yellow(
                f"The certificate of {where} expires in {days} days.",
                "Renew it on the mail server.",
            )
        )
    how = ("with TLS" if encrypted else "without TLS") + (", logged in" if server.username else "")
    return found or [green(f"{where} takes mail from {settings.email_from} ({how}).")]


async def check_templates(examination: Examination) -> Iterable[Finding]:
    """Compiles and renders each mail template with sample data."""
    problems = await asyncio.to_thread(
        check, examination.settings.templates_dir, sample_types(None)
    )
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        return [
            red(
                f"{'; '.join(map(str, problems[:3]))}{more}",
                "Correct the template: `tocsin templates check` lists all problems.",
            )
        ]
    return [green("Each mail template can be rendered.")]


async def check_dns(examination: Examination) -> Iterable[Finding]:
    """Looks up the sender's domain: MX, SPF, DKIM and DMARC."""
    settings = examination.settings
    if settings.smtp is None:
        return [skipped("Not checked: no mail is sent.")]
    domain = parseaddr(settings.email_from)[1].rpartition("@")[2]
    if domain.endswith(_LOCAL) or domain in _EXAMPLES or "." not in domain:
        return [skipped(f"Not checked: {domain} is not a domain of the public DNS.")]
    ask = _Asking(examination.options.dns_server)
    try:
        return await _check_domain(ask, idna.encode(domain).decode(), settings)
    except dns.exception.Timeout:
        reason = "no resolver responds"
    except (dns.exception.DNSException, OSError) as error:
        reason = one_line(error)
    cure = "Run this where the network is, or name a resolver by --dns-server ADDRESS."
    return [yellow(f"DNS can't be asked from here: {reason}.", cure)]


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
    if not (
        await ask.texts(domain, "MX")
        or await ask.texts(domain, "A")
        or await ask.texts(domain, "AAAA")
    ):
        found.append(
            red(
                f"{domain} has neither MX nor address: many servers refuse mail from it, and bounces are lost.",
                f"Add an MX record for {domain}, or correct TOCSIN_EMAIL_FROM.",
            )
        )
    spf = [
        each for each in await ask.texts(domain, "TXT") if each.lower().split(" ")[0] == "v=spf1"
    ]
    found += _judge_spf(domain, spf)
    found += await _check_dkim(ask, settings)
    found += await _check_dmarc(ask, domain)
    if not spf and settings.dkim is None:
        found.append(
            red(
                f"Neither SPF nor DKIM vouches for {domain}: large providers refuse its mail.",
                "Add an SPF record, and set TOCSIN_DKIM_KEY or let your relay sign (docs/mail.md).",
            )
        )
    return found or [green(f"{domain} has MX, SPF, DKIM and DMARC.")]


def _judge_spf(domain: str, records: list[str]) -> Iterable[Finding]:
    if len(records) > 1:
        yield red(
            f"{domain} has {len(records)} SPF records, so none counts (RFC 7208).",
            "Merge them into one.",
        )
    elif not records:
        yield yellow(
            f"{domain} has no SPF record.",
            'Add a TXT record such as "v=spf1 include:your-relay.example -all".',
        )
    elif records[0].rstrip().endswith(("+all", " all")):
        yield yellow(
            f"The SPF record of {domain} allows everyone to send.", "End it with -all or ~all."
        )


async def _check_dkim(ask: _Asking, settings: Settings) -> list[Finding]:
    key = settings.dkim
    if key is None:
        return [
            yellow(
                "Mails are not signed by Tocsin (DKIM).",
                "Set TOCSIN_DKIM_KEY and TOCSIN_DKIM_SELECTOR, unless your relay signs for this domain.",
            )
        ]
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
        return [
            red(
                f"{name} has no DKIM record: each signature fails.",
                f'Add the TXT record "v=DKIM1; k={kind}; p={expected}".',
            )
        ]
    fields = dict(part.strip().split("=", 1) for part in records[0].split(";") if "=" in part)
    if "".join(fields.get("p", "").split()) != expected:
        return [
            red(
                f"The DKIM record {name} is of another key: each signature fails.",
                f"Let its p= be {expected}, or set TOCSIN_DKIM_KEY to the key of the record.",
            )
        ]
    return []


async def _check_dmarc(ask: _Asking, domain: str) -> list[Finding]:
    # the domain's own, or that of a domain above it
    labels = domain.split(".")
    for start in range(len(labels) - 1):
        records = await ask.texts("_dmarc." + ".".join(labels[start:]), "TXT")
        if any(each.replace(" ", "").lower().startswith("v=dmarc1;") for each in records):
            return []
    return [
        yellow(
            f"{domain} has no DMARC record, which large providers require of bulk senders.",
            f'Add the TXT record _dmarc.{domain}, such as "v=DMARC1; p=none; rua=mailto:…".',
        )
    ]
