"""Which mail it is: one notification's, several that go together, or a digest's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from msgspec import structs

from tocsin.engine.mail.brand import Brand
from tocsin.engine.mail.links import Links
from tocsin.engine.mail.loader import DEFAULT, Templates
from tocsin.engine.mail.render_several import render_burst, render_digest
from tocsin.engine.mail.render_single import render_mail, to_sender
from tocsin.engine.model import Claimed, Entry, Mail, Message, Push, PushKind

# From a claimed delivery to the push that its actor sends.

# Of several that wait for a device that is off, the last one is enough.
_BADGE = "tocsin-badge"


def render_push(claimed: Claimed) -> Message:
    """The push of one delivery; without an event it corrects the badge."""
    push = _badge(claimed) if claimed.event_id is None else _alert(claimed)
    return Message(claimed.delivery_id, claimed.claim, claimed.channel, claimed.priority, push)


def _badge(claimed: Claimed) -> Push:
    """Nothing but the number, which the presend check takes."""
    return Push(kind=PushKind.BADGE, collapse_id=_BADGE, expires_at=claimed.expires_at)


def _alert(claimed: Claimed) -> Push:
    """What people see; `data` has what an app needs to open it."""
    data = {
        "notification_id": str(claimed.notification_id),
        "event_id": str(claimed.event_id),
        "event_type": claimed.event_type,
    }
    if claimed.action_url:
        data["action_url"] = claimed.action_url
    return Push(
        title=claimed.title,
        body=claimed.body,
        data=data,
        thread_id=claimed.category,
        expires_at=claimed.expires_at,
    )


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
