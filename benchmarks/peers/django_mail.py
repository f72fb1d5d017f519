"""Sends mails as a Django app does, rendered from its own templates; controlled by lines of JSON on standard input.

{"port", "count", "reuse"}: through an SMTP server on that port; `reuse` keeps one connection, while `send_mail` opens
one for each mail. Replies with the seconds that it took.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import django
from django.conf import settings
from django.core.mail import get_connection, send_mail
from django.template.loader import get_template

FROM = "Example Club <notifications@example.com>"


def main(folder: Path) -> None:
    settings.configure(
        TEMPLATES=[
            {"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [str(folder)]}
        ],
        EMAIL_HOST="127.0.0.1",
    )
    django.setup()
    text, html = get_template("mail.txt"), get_template("mail.html")
    print(json.dumps({"django": django.get_version()}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        settings.EMAIL_PORT = asked["port"]
        started = time.perf_counter()
        connection = get_connection() if asked["reuse"] else None
        if connection is not None:
            connection.open()
        for number in range(asked["count"]):
            context = {"title": f"Reply {number}", "body": "The roses came.", "url": f"/t/{number}"}
            send_mail(
                context["title"],
                text.render(context),
                FROM,
                [f"person{number}@example.com"],
                html_message=html.render(context),
                connection=connection,
            )
        if connection is not None:
            connection.close()
        print(json.dumps(time.perf_counter() - started), flush=True)


main(Path(sys.argv[1]))
