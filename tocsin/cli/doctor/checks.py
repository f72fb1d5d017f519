"""The table of checks, in the order in which they are printed."""

from __future__ import annotations

from tocsin.cli.doctor import database, mail, push, schema, services
from tocsin.cli.doctor.examination import Check

CHECKS = (
    Check("settings", "Each TOCSIN_… variable can be read.", services.check_settings),
    Check(
        "database",
        "The database can be reached; a network connection to it is encrypted.",
        database.check_connection,
    ),
    Check(
        "requirements",
        "PostgreSQL 15 or newer, UTF8, a primary, no pooler in transaction mode.",
        database.check_requirements,
        "database",
    ),
    Check(
        "session",
        "Tocsin's sessions have its DateStyle, time zone, isolation and timeouts.",
        database.check_session,
        "database",
    ),
    Check(
        "schema",
        "Tables and functions are those of this version, and no restore left foreign transaction ids.",
        schema.check_schema,
        "database",
    ),
    Check(
        "rights",
        "Roles and grants are as `tocsin migrate` made them; no superuser.",
        schema.check_rights,
        "database",
    ),
    Check(
        "notify",
        "A NOTIFY is received on another connection, and its queue is not full.",
        database.check_notify,
        "database",
    ),
    Check(
        "storage",
        "A commit is written soon; autovacuum, fsync, transaction ids and collation are in order.",
        database.check_storage,
        "database",
    ),
    Check(
        "connections",
        "There is room for the connections of `serve` and `worker`.",
        schema.check_connections,
        "database",
    ),
    Check(
        "transactions",
        "No transaction, prepared or not, has been open for minutes.",
        schema.check_transactions,
        "database",
    ),
    Check(
        "publications",
        "No publication makes PostgreSQL refuse changes of Tocsin's tables.",
        schema.check_publications,
        "database",
    ),
    Check(
        "replication",
        "Standbys keep up, and no abandoned slot fills the disk.",
        schema.check_replication,
        "database",
    ),
    Check("clock", "This machine's clock is PostgreSQL's.", database.check_clock, "database"),
    Check("zones", "Python and PostgreSQL have the same rules.", database.check_zones, "database"),
    Check(
        "services",
        "A worker, a leader and `serve` run, in one version; nothing is late or fails.",
        services.check_processes,
        "schema",
    ),
    Check(
        "tokens",
        "A key for people's JWTs is set, and the key set can be read.",
        services.check_tokens,
    ),
    Check(
        "stream",
        "A stream through the public URL has its first bytes at once; certificate and proxy are in order.",
        services.check_stream,
        limit=45.0,
    ),
    Check(
        "smtp",
        "The mail server accepts connection, TLS, login and sender.",
        mail.check_smtp,
        limit=30.0,
    ),
    Check("templates", "Each mail template can be rendered.", mail.check_templates, limit=60.0),
    Check(
        "dns",
        "The sender's domain has MX, SPF, the DKIM record of our key, and DMARC.",
        mail.check_dns,
        limit=40.0,
    ),
    Check("apns", "APNs can be reached and accepts the key.", push.check_apns, limit=40.0),
    Check("fcm", "FCM can be reached and accepts the account.", push.check_fcm, limit=40.0),
)
