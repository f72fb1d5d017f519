"""One line per happening, as JSON or for a person's eyes; never a body, an address or a token."""

from __future__ import annotations

import logging
import sys

import structlog

from tocsin.settings import Settings

# Locals hold what no log may have: a DSN with its password, an address, a body.
_WITHOUT_LOCALS = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
_PLAIN = structlog.dev.plain_traceback


def configure_logs(settings: Settings) -> None:
    """Sends structlog's lines, and those of libraries, to standard error."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    console = settings.log_format == "console"
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), pad_event_to=0, exception_formatter=_PLAIN
        )
        if console
        else structlog.processors.JSONRenderer()
    )
    errors: list[structlog.typing.Processor] = (
        [] if console else [structlog.processors.ExceptionRenderer(_WITHOUT_LOCALS)]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *errors,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    # each job would say three lines; the ledger's one line per attempt says more
    for name in ("procrastinate", "uvicorn", "psycopg", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    # quotes bodies and addresses of mails that fail
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)
