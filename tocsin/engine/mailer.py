"""Which mail it is: one notification's, several that go together, or a digest's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from tocsin.engine.links import Links
from tocsin.engine.mail_templates import DEFAULT, Templates
from tocsin.engine.model import Claimed, Entry, Message
from tocsin.engine.render import render_mail, to_sender
from tocsin.engine.render_burst import render_burst
from tocsin.engine.render_digest import render_digest

RenderMail = Callable[[Sequence[Claimed], Sequence[Entry]], Message]


def mail_renderer(links: Links, email_from: str, templates: Templates = DEFAULT) -> RenderMail:
    """Renders the mails of one service, at the present time."""
    sender = to_sender(email_from)

    def render(together: Sequence[Claimed], said: Sequence[Entry]) -> Message:
        now = datetime.now(UTC)
        first = together[0]
        if first.digest_id is not None:
            return render_digest(
                first, said, links=links, sender=sender, now=now, templates=templates
            )
        if len(together) > 1:
            return render_burst(together, links=links, sender=sender, now=now, templates=templates)
        return render_mail(first, links=links, sender=sender, now=now, templates=templates)

    return render
