"""The table of checks, in the order in which they are printed."""

from __future__ import annotations

from tocsin.cli.doctor import database, mail, push, schema, services
from tocsin.cli.doctor.examination import TEXTS, Check, Run

_RUNS: dict[str, Run] = {
    "settings": services.check_settings,
    "database": database.check_connection,
    "requirements": database.check_requirements,
    "session": database.check_session,
    "schema": schema.check_schema,
    "rights": schema.check_rights,
    "notify": database.check_notify,
    "storage": database.check_storage,
    "connections": schema.check_connections,
    "transactions": schema.check_transactions,
    "publications": schema.check_publications,
    "replication": schema.check_replication,
    "clock": database.check_clock,
    "zones": database.check_zones,
    "services": services.check_processes,
    "tokens": services.check_tokens,
    "stream": services.check_stream,
    "smtp": mail.check_smtp,
    "templates": mail.check_templates,
    "dns": mail.check_dns,
    "apns": push.check_apns,
    "fcm": push.check_fcm,
    "web_push": push.check_web_push,
}


_OPTIONS = {"purpose", "needs", "limit"}
CHECKS = tuple(
    Check(name, run, **{key: TEXTS[name][key] for key in _OPTIONS & TEXTS[name].keys()})
    for name, run in _RUNS.items()
)
