"""One connection to APNs: aioapns' own, with the faults of its version 4.0 mended.

1. No send had a deadline; a stream that was reset, or ended without a reason, hung for ever.
2. DATA was never acknowledged: a connection stood still after some 2,000 error answers.
3. A send that was cancelled killed the connection, and with it all others in flight.
4. Each connection signed a token of its own; here each request brings the one that all share.
5. An error body that isn't JSON, or comes in pieces, killed the connection.

And, found on the way: a GOAWAY lost also what the server still answers, and what it never took was
as unknown as what it may have taken; streams stayed in a dict for ever; a connection that is only
half open was never noticed. tests/unit/test_apns_connection.py shows each, against both classes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import structlog
from aioapns.connection import APNsTLSClientProtocol
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import H2Error, StreamClosedError
from hpack import NeverIndexedHeaderTuple
from hyperframe.frame import GoAwayFrame
from msgspec import Struct

from tocsin.engine.actors.apns.reply import ApnsResponse, read
from tocsin.engine.actors.machinery.envelope import NoResponse

# A connection's way to the network: what may be written when, and whether anyone is still there.

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


MAX_PAYLOAD = 4096
_MAX_BODY = 4096  # of an answer; what is beyond is not kept
_LAST_STREAM = 2**30  # half of HTTP/2's range: time for another connection
_ALWAYS_ANOTHER = frozenset({"apns-id", "apns-collapse-id"})


class Request(Struct, frozen=True):
    """One push as it goes over the wire; `headers` are those that begin with "apns-"."""

    device: str
    headers: tuple[tuple[str, str], ...]
    payload: bytes


class _Stream:
    """A request that waits for its answer."""

    def __init__(self, answer: asyncio.Future[ApnsResponse | NoResponse]) -> None:
        self.id = 0
        self.answer = answer
        self.headers: dict[bytes, bytes] = {}
        self.body = bytearray()

    def end(self, how: str, *, unprocessed: bool = False) -> None:
        """Answers with what is known: once there is a status, the body only explains it."""
        if not self.answer.done():
            known = b":status" in self.headers
            self.answer.set_result(
                read(self.headers, self.body) if known else NoResponse(how, unprocessed=unprocessed)
            )


class ApnsConnection(ApnsWire):
    """Many requests at once on one connection.

    It is `ready` once the server has greeted, or gone. `held` counts the requests that are promised a stream
    or have one, by the pool; `most` bounds them together with the server's own limit. `server` is
    the authority of its URL.
    """

    def __init__(
        self, server: str, *, changed: Callable[[], None], quiet: float = 15.0, most: int = 500
    ) -> None:
        super().__init__(changed=changed, quiet=quiet)
        self.ready: asyncio.Future[None] = self.loop.create_future()
        self.held = 0
        self.answered = 0
        self._most = most
        self._streams: dict[int, _Stream] = {}
        self._meet: dict[type[events.Event], Callable[[Any], None]] = {
            events.ResponseReceived: self._on_headers,
            events.DataReceived: self._on_data,
            events.StreamEnded: self._on_end,
            events.StreamReset: self._on_reset,
            events.ConnectionTerminated: self._on_goodbye,
            events.RemoteSettingsChanged: self._on_settings,
            events.WindowUpdated: self._on_window,
        }
        self._head = (
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", server.encode()),
        )

    @property
    def room(self) -> int:
        """How many further requests may be promised a stream now."""
        limit = min(self._most, self.conn.remote_settings.max_concurrent_streams)
        return limit - self.held if self.usable else 0

    @property
    def usable(self) -> bool:
        """Whether a request that is sent now leaves at once."""
        window = self.conn.outbound_flow_control_window
        return not self.closing and self.writable and window >= MAX_PAYLOAD

    @property
    def waiting(self) -> int:
        return len(self._streams)

    async def send(
        self, request: Request, token: str, *, timeout: float
    ) -> ApnsResponse | NoResponse:
        """Sends one push, before anything else can happen, and waits for the answer.

        Cancelled, or after `timeout` seconds, its stream ends and no other is harmed.
        """
        began = self.loop.time()
        stream = self._open(request, token)
        try:
            async with asyncio.timeout(timeout):
                return await stream.answer
        except TimeoutError:
            if stream.answer.done() and not stream.answer.cancelled():
                return stream.answer.result()
            if self.heard_at < began:
                self.closing = True  # nothing at all was heard: nothing more goes this way
            known = b":status" in stream.headers
            return read(stream.headers, stream.body) if known else NoResponse("timeout")
        finally:
            self._forget(stream)

    def _open(self, request: Request, token: str) -> _Stream:
        stream = _Stream(self.loop.create_future())
        if not self.usable:
            stream.end("closed", unprocessed=True)
            return stream
        self.used_at = self.loop.time()
        try:
            stream.id = self.conn.get_next_available_stream_id()
            self.conn.send_headers(stream.id, [*self._head, *_headers(request, token)])
            self._streams[stream.id] = stream
            self.conn.send_data(stream.id, request.payload, end_stream=True)
        except H2Error as error:  # a limit of the server's that this request doesn't meet
            stream.end(type(error).__name__, unprocessed=True)
        if stream.id >= _LAST_STREAM:
            self.closing = True
        self.flush()
        return stream

    def _forget(self, stream: _Stream) -> None:
        """Gives up a stream whose end didn't come."""
        if self._streams.pop(stream.id, None) is not None:
            with contextlib.suppress(StreamClosedError):  # it came in this very moment
                self.conn.reset_stream(stream.id, ErrorCodes.CANCEL)
            self.flush()
        if self.closing and not self._streams:
            self.retire()

    # What comes from the server.

    def on_event(self, event: events.Event) -> None:
        if meet := self._meet.get(type(event)):
            meet(event)

    def on_broken(self, how: str) -> None:
        if not self.ready.done():
            self.ready.set_result(None)
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.end(how)

    def _on_headers(self, event: events.ResponseReceived) -> None:
        if stream := self._streams.get(event.stream_id):
            stream.headers = dict(event.headers)

    def _on_data(self, event: events.DataReceived) -> None:
        self.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        stream = self._streams.get(event.stream_id)
        if stream and len(stream.body) < _MAX_BODY:
            stream.body += event.data

    def _on_end(self, event: events.StreamEnded) -> None:
        self._end(event.stream_id, "protocol_error")

    def _on_reset(self, event: events.StreamReset) -> None:
        refused = event.error_code == ErrorCodes.REFUSED_STREAM
        self._end(event.stream_id, "reset", unprocessed=refused)

    def _on_goodbye(self, event: events.ConnectionTerminated) -> None:
        """What came after the last stream that the server names, it never took (RFC 9113, 6.8)."""
        said = bytes(event.additional_data or b"")[:200].decode("ascii", "replace")
        log.info("apns goes away", code=int(event.error_code or 0), said=said)
        self.closing = True
        for stream_id in [each for each in self._streams if each > (event.last_stream_id or 0)]:
            self._end(stream_id, "goaway", unprocessed=True)
        self.retire()

    def _on_settings(self, _: events.RemoteSettingsChanged) -> None:
        if not self.ready.done():
            self.ready.set_result(None)
        self.changed()

    def _on_window(self, _: events.WindowUpdated) -> None:
        self.changed()

    def _end(self, stream_id: int, how: str, *, unprocessed: bool = False) -> None:
        if stream := self._streams.pop(stream_id, None):
            self.answered += not unprocessed
            stream.end(how, unprocessed=unprocessed)


def _headers(request: Request, token: str) -> list[Any]:
    """What repeats is indexed, as Apple recommends; what is each time another is not."""
    headers: list[Any] = [
        NeverIndexedHeaderTuple(b":path", b"/3/device/" + request.device.encode()),
        (b"authorization", b"bearer " + token.encode()),
    ]
    for name, value in request.headers:
        pair = (name.encode(), value.encode())
        headers.append(NeverIndexedHeaderTuple(*pair) if name in _ALWAYS_ANOTHER else pair)
    return headers
