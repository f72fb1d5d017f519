"""Which mail it is: one notification's, several that go together, or a digest's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from msgspec import structs

from tocsin.engine.brand import Brand
from tocsin.engine.links import Links
from tocsin.engine.mail_templates import DEFAULT, Templates
from tocsin.engine.model import Claimed, Entry, Mail, Message
from tocsin.engine.render import render_mail, to_sender
from tocsin.engine.render_burst import render_burst
from tocsin.engine.render_digest import render_digest

RenderMail = Callable[[Sequence[Claimed], Sequence[Entry]], Message]


def mail_renderer(links: Links, email_from: str, templates: Templates = DEFAULT) -> RenderMail:
    """Renders the mails of one service, at the present time."""
    from_header = to_sender(email_from)

    def render(together: Sequence[Claimed], said: Sequence[Entry]) -> Message:
        now = datetime.now(UTC)
        first = together[0]
        sender = structs.replace(from_header, name=templates.brand.name or from_header.name)
        if first.digest_id is not None:
            message = render_digest(
                first, said, links=links, sender=sender, now=now, templates=templates
            )
        elif len(together) > 1:
            message = render_burst(
                together, links=links, sender=sender, now=now, templates=templates
            )
        else:
            message = render_mail(first, links=links, sender=sender, now=now, templates=templates)
        return _branded(message, templates.brand)

    return render


def _branded(message: Message, brand: Brand) -> Message:
    """With the logo, where the mail shows it, and an address for answers."""
    mail = message.content
    assert isinstance(mail, Mail)
    if brand.image and f"cid:{brand.image.content_id}" in mail.html:
        mail = structs.replace(mail, images=(brand.image,))
    if brand.reply_to:
        mail = structs.replace(mail, headers=(*mail.headers, ("Reply-To", brand.reply_to)))
    return message if mail is message.content else structs.replace(message, content=mail)
