"""The logs: one line per entry, as JSON or for a terminal; never a body, an address or a token."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg
import structlog

from tocsin.settings import Settings

# Local variables hold what no log may have: a DSN with its password, an address, a body.
_WITHOUT_LOCALS = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
_LINES = "lines"
_PLAIN = structlog.dev.plain_traceback


class Logger(structlog.stdlib.BoundLogger):
    """structlog's logger, with a method for many lines at once."""

    def many(self, event: str, lines: Sequence[dict[str, Any]]) -> None:
        """Logs a line for each of `lines`, at the level `info`, in one write."""
        logger: logging.Logger = self._logger
        logger.info(event, extra={_LINES: lines})


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Writes the lines of `Logger.many` at 2 µs each. A line by itself takes 80 µs, more than a delivery."""

    def __init__(self, renderer: structlog.typing.Processor, **options: Any) -> None:
        super().__init__(**options)
        self._line = _json if isinstance(renderer, structlog.processors.JSONRenderer) else renderer

    def format(self, record: logging.LogRecord) -> str:
        lines: Sequence[dict[str, Any]] | None = getattr(record, _LINES, None)
        if lines is None:
            return super().format(record)
        at = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
        same = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": at,
        }
        return "\n".join([str(self._line(None, "info", line | same)) for line in lines])


def _json(_logger: Any, _name: str, line: Any) -> str:
    return msgspec.json.encode(line).decode()


def _without_values(_logger: Any, _name: str, line: Any) -> Any:
    """Keeps class, SQLSTATE and traceback of a database error: its message quotes addresses, ids and texts."""
    given = line.get("exc_info")
    error = given[1] if isinstance(given, tuple) else given
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException) and any(
        isinstance(each, psycopg.Error) for each in _chain(error)
    ):
        del line["exc_info"]
        line["exception"] = "\n".join(_describe(each) for each in reversed([*_chain(error)]))
    return line


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields the error, and then its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _describe(error: BaseException) -> str:
    sqlstate = getattr(error, "sqlstate", None)
    name = type(error).__qualname__ + (f" (SQLSTATE {sqlstate})" if sqlstate else "")
    return "".join(traceback.format_tb(error.__traceback__)) + name


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
        wrapper_class=Logger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        _Formatter(
            renderer,
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _without_values,
                *errors,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    # they log three lines per job; our one line per attempt has more in it
    for name in ("procrastinate", "uvicorn", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    # it logs a line for each connection that is lost with the database; tocsin.database logs one for all
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    # it quotes bodies and addresses of failed mails
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)
