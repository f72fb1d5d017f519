"""The pages of `make up`: the demo, the mailbox, the phones, the mail templates. Under `tocsin up` only."""

from __future__ import annotations

from litestar import Router
from litestar.types import ControllerRouterHandler

from tocsin.dev.pages import arrivals, demo, preview


def dev_routes() -> list[ControllerRouterHandler]:
    """All of /dev/, and the root that leads there."""
    return [
        demo.front_door,
        Router(
            "/dev",
            route_handlers=[
                demo.demo_page,
                demo.asset,
                demo.sign,
                demo.sign_in,
                demo.act,
                arrivals.mailbox,
                arrivals.clear_mailbox,
                arrivals.read,
                arrivals.mail_html,
                arrivals.mail_source,
                arrivals.list_arrivals,
                arrivals.clear_phones,
                preview.list_mails,
                preview.problems,
                preview.version,
                preview.show,
                preview.show_html,
            ],
        ),
    ]
