"""/dev/mail/: what the mailbox of `make up` caught, as a page or as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from litestar import Response, delete
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from tocsin import mailbox as box
from tocsin.engine.model import NotFound
from tocsin.http.access_log import QUIET
from tocsin.http.dev.page import INERT, html
from tocsin.http.errors import AnyRequest
from tocsin.http.operation import get
from tocsin.http.requests import no_content, reply
from tocsin.http.services import Services

_SHOWN = 200


@get("/mail", sync_to_thread=True, opt={QUIET: True})
def mailbox(
    request: AnyRequest,
    services: NamedDependency[Services],
    limit: Annotated[int | None, QueryParameter(ge=1)] = None,
) -> Response[Any]:
    """The newest mails first: all of them as JSON, or the newest `limit`; the newest 200 as a page."""
    if "application/json" in request.headers.get("accept", ""):
        return reply(box.read_mails(_folder(services), limit))
    return html("mailbox.html", mails=box.read_mails(_folder(services), _SHOWN))


@delete("/mail", status_code=204, sync_to_thread=False)
def clear_mailbox(services: NamedDependency[Services]) -> Response[None]:
    """Forgets them all."""
    box.clear(_folder(services))
    return no_content()


@get("/mail/{mail_id:str}", sync_to_thread=False)
def read(
    mail_id: FromPath[str], request: AnyRequest, services: NamedDependency[Services]
) -> Response[Any]:
    """One mail: its HTML, its text, its headers."""
    mail = _mail(services, mail_id)
    if "application/json" in request.headers.get("accept", ""):
        return reply(mail)
    return html("mail.html", mail=mail)


@get("/mail/{mail_id:str}/html", sync_to_thread=False)
def mail_html(mail_id: FromPath[str], services: NamedDependency[Services]) -> Response[str]:
    """Its HTML part alone, inert."""
    mail = _mail(services, mail_id)
    return Response(mail["html"], media_type="text/html", headers=INERT)


@get("/mail/{mail_id:str}/source", sync_to_thread=False)
def mail_source(mail_id: FromPath[str], services: NamedDependency[Services]) -> Response[bytes]:
    """The mail as it came over the wire."""
    _mail(services, mail_id)
    content = (_folder(services) / f"{mail_id}.eml").read_bytes()
    return Response(content, media_type="text/plain", headers=INERT)


def _mail(services: Services, mail_id: str) -> dict[str, Any]:
    mail = box.read_mail(_folder(services), mail_id)
    if mail is None:
        raise NotFound("There is no such mail.")
    return mail


def _folder(services: Services) -> Path:
    return services.settings.data_dir / "mailbox"
