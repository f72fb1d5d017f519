"""A connection's way to the network: what may be written when, and whether anyone is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import structlog
from aioapns.connection import APNsTLSClientProtocol
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import H2Error
from hyperframe.frame import GoAwayFrame

_PING = b"tocsin??"

log = structlog.get_logger(__name__)


class _H2(H2Connection):
    """h2 refuses each frame after a GOAWAY, though the server still answers what it took."""

    MAX_CLOSED_STREAMS = (
        4096  # it remembers them to tell what comes late; 65,536 are some megabytes
    )

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Any], list[events.Event]]:
        state = self.state_machine.state
        received = super()._receive_goaway_frame(frame)
        self.state_machine.state = state
        return received


class ApnsWire(APNsTLSClientProtocol):
    """aioapns' protocol from below: it writes once a round, never into a full pipe, and checks the pulse.

    `quiet` is after how many seconds of silence the server is asked whether it is still there, and
    as many later given up; `INACTIVITY_TIME` after how many without a request the connection is
    closed. `changed` is called when it may take more, or nothing any more; `gone` is done once it is
    closed.
    """

    INACTIVITY_TIME = 300

    def __init__(self, *, changed: Callable[[], None], quiet: float) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(apns_topic="", loop=loop)
        plain = H2Configuration(normalize_outbound_headers=False, validate_outbound_headers=False)
        self.conn = _H2(plain)
        self.closing = False
        self.writable = True
        self.changed = changed
        self.gone: asyncio.Future[None] = loop.create_future()
        self.heard_at = self.asked_at = self.used_at = loop.time()
        self._quiet = quiet
        self._flushing = False
        self._pulse: asyncio.TimerHandle | None = None

    # What a subclass says.

    @property
    def waiting(self) -> int:
        """How many requests wait for their answers."""
        raise NotImplementedError

    def on_event(self, event: events.Event) -> None:
        """Meets one event of HTTP/2."""
        raise NotImplementedError

    def on_broken(self, how: str) -> None:
        """No answer comes any more to what waits."""
        raise NotImplementedError

    # What it may ask.

    def flush(self) -> None:
        """Writes what there is, once for all that happens in one round of the loop."""
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._write)

    def retire(self) -> None:
        """Takes nothing more, and closes once nothing waits for an answer."""
        self.closing = True
        if not self.waiting:
            self.close()
        self.changed()

    def close(self) -> None:
        """Closes at once; politely, unless something still waits for an answer."""
        self.closing = True
        self._stop_pulse()
        if self.transport is None or self.transport.is_closing():
            return
        if self.waiting:
            self.transport.abort()
        else:
            self._write()
            self.transport.close()

    def abort(self, how: str) -> None:
        """Cuts it, and with it all that waits."""
        self.on_broken(how)
        self.closing = True
        self._stop_pulse()
        if self.transport is not None:
            with suppress(AttributeError):  # early 3.11: a TLS transport that is closed already
                self.transport.abort()
        self.changed()

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=1, low=0)  # a push that waits there grows stale
        self.conn.local_settings.enable_push = 0
        self.conn.initiate_connection()
        self._write()
        self._beat()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        self._stop_pulse()
        self.transport = None
        self.gone.set_result(None)
        self.on_broken("disconnected" if exc is None else "connection_lost")
        self.changed()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self.changed()

    def data_received(self, data: bytes) -> None:
        self._write()  # h2 forgets what it has still to send when it reads a GOAWAY
        try:
            for event in self.conn.receive_data(data):
                self.heard_at = self.loop.time()  # bytes alone are no sign of life
                self.on_event(event)
        except H2Error as error:
            log.warning("apns protocol error", error=str(error))
            self.abort("protocol_error")
            return
        self.flush()

    def _write(self) -> None:
        self._flushing = False
        data = self.conn.data_to_send()
        if data and self.transport is not None:
            self.transport.write(data)

    def _beat(self) -> None:
        """Asks a server that is silent whether it is there, and gives up one that doesn't say so."""
        now = self.loop.time()
        asked = self.asked_at > self.heard_at
        if asked and now - self.asked_at >= self._quiet:
            log.warning("apns connection is dead", waiting=self.waiting)
            self.abort("disconnected")
            return
        if not self.waiting and now - self.used_at >= self.INACTIVITY_TIME:
            self.retire()
            return
        if not asked and now - self.heard_at >= self._quiet:
            self.asked_at = now
            self.conn.ping(_PING)
            self.flush()
        self._pulse = self.loop.call_later(self._quiet, self._beat)

    def _stop_pulse(self) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
            self._pulse = None
