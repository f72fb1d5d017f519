"""One connection to APNs: that of aioapns, with the faults of its version 4.0 corrected.

docs/upstream/aioapns.md describes each fault and its correction; tests/unit/test_apns_connection.py shows them against
both classes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast
from urllib.parse import urlsplit

import structlog
from aioapns.connection import APNsTLSClientProtocol
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import H2Error, StreamClosedError
from hpack import Encoder, HeaderTuple, NeverIndexedHeaderTuple
from hyperframe.frame import GoAwayFrame
from msgspec import Struct

from tocsin.engine.actors.apns_reply import ApnsResponse, NoResponse, read
from tocsin.engine.actors.machinery.envelope import network_failure

MAX_PAYLOAD = 4096
_MAX_BODY = 4096  # bytes kept of a response
_MOST_STREAMS = 500  # of one connection
_LAST_STREAM = 2**30  # half of the range of HTTP/2: then another connection is used
_UNIQUE_HEADERS = frozenset({"apns-id", "apns-collapse-id"})
_PING = b"tocsin??"  # any eight bytes
_INDEXED = 0x80  # the first bit of a header that is in the table (RFC 7541, section 6.1)

log = structlog.get_logger(__name__)


class HeaderEncoder(Encoder):
    """Encodes headers in a quarter of hpack's time.

    It remembers how each header of the table is written, until the table changes, and leaves out the Huffman code, for
    which hpack has a loop over each character: a push has 50 bytes more.
    """

    def __init__(self) -> None:
        super().__init__()
        self._indexed: dict[HeaderTuple, bytes] = {}

    def encode(self, headers: Any, huffman: bool = False) -> bytes:
        """Returns the header block; adds its headers to the table, but for those that are never indexed."""
        block = b""
        if self.header_table.resized:
            self._indexed.clear()
            block = super().encode((), huffman)  # states the new size
        for header in headers:
            if isinstance(header, NeverIndexedHeaderTuple):
                block += self.add(header, sensitive=True, huffman=huffman)
            else:
                block += self._indexed.get(header) or self._add_indexed(header, huffman)
        return block

    def _add_indexed(self, header: HeaderTuple, huffman: bool) -> bytes:
        written = self.add(header, sensitive=False, huffman=huffman)
        if written[0] & _INDEXED:
            self._indexed[header] = written
        else:  # it was added to the table, which moves the others
            self._indexed.clear()
        return written


class _H2(H2Connection):
    """Accepts frames after a GOAWAY, since the server still responds to what it accepted; h2 refuses them.

    A stream that has ended is forgotten at once. h2 would visit all of its streams at each new one.
    """

    # h2 remembers them for frames that come late; its 65,536 take megabytes
    MAX_CLOSED_STREAMS = 4096

    @property
    def open_outbound_streams(self) -> int:
        """How many streams have not ended; the server opens none."""
        return len(self.streams)

    def forget(self, stream_id: int) -> None:
        """Forgets a stream, if it has ended."""
        stream = self.streams.get(stream_id)
        if stream is not None and stream.closed:
            del self.streams[stream_id]
            self._closed_streams[stream_id] = stream.closed_by

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Any], list[events.Event]]:
        state = self.state_machine.state
        received = super()._receive_goaway_frame(frame)
        self.state_machine.state = state
        return received


class Request(Struct, frozen=True):
    """One push as it is sent; `headers` are those that begin with "apns-"."""

    device: str
    headers: tuple[tuple[str, str], ...]
    payload: bytes


class _Stream:
    """A request that waits for its response."""

    def __init__(self, response: asyncio.Future[ApnsResponse | NoResponse]) -> None:
        self.id = 0
        self.response = response
        self.headers: dict[bytes, bytes] = {}
        self.body = bytearray()

    def end(self, reason: str, *, unprocessed: bool = False) -> None:
        """Ends it with a response if there is a status, whose body is only an explanation."""
        if not self.response.done():
            self.response.set_result(self.read() or NoResponse(reason, unprocessed=unprocessed))

    def read(self) -> ApnsResponse | None:
        """Returns the response as far as it came; None without a status."""
        return read(self.headers, self.body) if b":status" in self.headers else None


class ApnsConnection(APNsTLSClientProtocol):
    """Many requests at the same time on one connection, which buffers what it writes, and pings a silent server.

    `ready` is done once the settings of the server came, or the connection is lost; `closed` once it is closed.
    `reserved` counts the requests that have a stream, or for which the pool reserved one; `_MOST_STREAMS` and the
    server's limit bound them. `server` is the authority of its URL. `changed` is called when it accepts more requests,
    or none any more. After `quiet` seconds without an event the server gets a ping, and after as many again the
    connection is given up. After `INACTIVITY_TIME` seconds without a request it is closed.
    """

    INACTIVITY_TIME = 300
    conn: _H2

    def __init__(self, server: str, *, changed: Callable[[], None], quiet: float = 15.0) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(apns_topic="", loop=loop)
        plain = H2Configuration(normalize_outbound_headers=False, validate_outbound_headers=False)
        self.conn = _H2(plain)
        self.conn.encoder = HeaderEncoder()
        self.closing = False
        self.writable = True
        self.changed = changed
        self.ready: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.event_at = self.pinged_at = self.used_at = loop.time()
        self.reserved = 0
        self.responses = 0
        self._quiet = quiet
        self._flushing = False
        self._keep_alive_timer: asyncio.TimerHandle | None = None
        self._streams: dict[int, _Stream] = {}
        self._handlers: dict[type[events.Event], Callable[[Any], None]] = {
            events.ResponseReceived: self._on_headers,
            events.DataReceived: self._on_data,
            events.StreamEnded: self._on_end,
            events.StreamReset: self._on_reset,
            events.ConnectionTerminated: self._on_goaway,
            events.RemoteSettingsChanged: self._on_settings,
            events.WindowUpdated: self._on_window,
        }
        self._fixed_headers = (
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", server.encode()),
        )

    @property
    def free_streams(self) -> int:
        """How many more streams may be reserved now."""
        limit = min(_MOST_STREAMS, self.conn.remote_settings.max_concurrent_streams)
        return limit - self.reserved if self.usable else 0

    @property
    def usable(self) -> bool:
        """Whether a request would be written at once."""
        window = self.conn.outbound_flow_control_window
        return not self.closing and self.writable and window >= MAX_PAYLOAD

    @property
    def waiting(self) -> int:
        """How many requests wait for their responses."""
        return len(self._streams)

    async def send(
        self, request: Request, token: str, *, timeout: float
    ) -> ApnsResponse | NoResponse:
        """Sends one push without an await before its first byte, and waits for the response.

        When it is cancelled, or after `timeout` seconds, only its own stream ends.
        """
        began = self.loop.time()
        stream = self._open(request, token)
        try:
            async with asyncio.timeout(timeout):
                return await stream.response
        except TimeoutError:
            if stream.response.done() and not stream.response.cancelled():
                return stream.response.result()
            if self.event_at < began:
                # there was no event at all: no more requests on this connection
                self.closing = True
            return stream.read() or NoResponse("timeout")
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
            self.conn.send_headers(stream.id, [*self._fixed_headers, *_headers(request, token)])
            self._streams[stream.id] = stream
            self.conn.send_data(stream.id, request.payload, end_stream=True)
        except H2Error as error:  # the request is beyond a limit of the server
            stream.end(type(error).__name__, unprocessed=True)
        if stream.id >= _LAST_STREAM:
            self.closing = True
        self.flush()
        return stream

    def _forget(self, stream: _Stream) -> None:
        """Resets a stream that has not ended."""
        if self._streams.pop(stream.id, None) is not None:
            with contextlib.suppress(StreamClosedError):  # it ended at this moment
                self.conn.reset_stream(stream.id, ErrorCodes.CANCEL)
            self.conn.forget(stream.id)
            self.flush()
        if self.closing and not self._streams:
            self.retire()

    def flush(self) -> None:
        """Writes what is buffered, once per iteration of the event loop."""
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._write)

    def retire(self) -> None:
        """Accepts no more requests, and closes once none waits for a response."""
        self.closing = True
        if not self.waiting:
            self.close()
        self.changed()

    def close(self) -> None:
        """Closes at once; in an orderly way unless a request still waits for a response."""
        self.closing = True
        self._stop_keep_alive()
        if self.transport is None or self.transport.is_closing():
            return
        if self.waiting:
            self.transport.abort()
        else:
            self._write()
            self.transport.close()

    def abort(self, reason: str) -> None:
        """Closes the transport at once; the requests that wait are lost."""
        self._lose(reason)
        self.closing = True
        self._stop_keep_alive()
        if self.transport is not None:
            with suppress(AttributeError):  # early 3.11: a TLS transport that is closed already
                self.transport.abort()
        self.changed()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        # a push that waits in the buffer would be sent on an old check
        self.transport.set_write_buffer_limits(high=1, low=0)
        self.conn.local_settings.enable_push = 0
        self.conn.initiate_connection()
        self._write()
        self._keep_alive()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        self._stop_keep_alive()
        self.transport = None
        self.closed.set_result(None)
        self._lose("disconnected" if exc is None else "connection_lost")
        self.changed()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self.changed()

    def data_received(self, data: bytes) -> None:
        self._write()  # h2 discards its output when it reads a GOAWAY
        try:
            for event in self.conn.receive_data(data):
                # bytes without an event do not show that it is alive
                self.event_at = self.loop.time()
                if handler := self._handlers.get(type(event)):
                    handler(event)
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

    def _keep_alive(self) -> None:
        """Pings a silent server, and gives up a connection without a response to the ping."""
        now = self.loop.time()
        pinged = self.pinged_at > self.event_at
        if pinged and now - self.pinged_at >= self._quiet:
            log.warning("apns connection does not respond", waiting=self.waiting)
            self.abort("disconnected")
            return
        if not self.waiting and now - self.used_at >= self.INACTIVITY_TIME:
            self.retire()
            return
        if not pinged and now - self.event_at >= self._quiet:
            self.pinged_at = now
            self.conn.ping(_PING)
            self.flush()
        self._keep_alive_timer = self.loop.call_later(self._quiet, self._keep_alive)

    def _stop_keep_alive(self) -> None:
        if self._keep_alive_timer is not None:
            self._keep_alive_timer.cancel()
            self._keep_alive_timer = None

    def _lose(self, reason: str) -> None:
        if not self.ready.done():
            self.ready.set_result(None)
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.end(reason)

    # What the server sends.

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

    def _on_goaway(self, event: events.ConnectionTerminated) -> None:
        """Ends the streams after the last one that the server processed (RFC 9113 section 6.8)."""
        text = bytes(event.additional_data or b"")[:200].decode("ascii", "replace")
        log.info("apns closes the connection", code=int(event.error_code or 0), text=text)
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

    def _end(self, stream_id: int, reason: str, *, unprocessed: bool = False) -> None:
        self.conn.forget(stream_id)
        if stream := self._streams.pop(stream_id, None):
            self.responses += not unprocessed
            stream.end(reason, unprocessed=unprocessed)


def _headers(request: Request, token: str) -> list[Any]:
    """Returns the headers; those that repeat are indexed, as Apple recommends, and unique ones are not."""
    headers: list[Any] = [
        NeverIndexedHeaderTuple(b":path", b"/3/device/" + request.device.encode()),
        (b"authorization", b"bearer " + token.encode()),
    ]
    for name, value in request.headers:
        pair = (name.encode(), value.encode())
        headers.append(NeverIndexedHeaderTuple(*pair) if name in _UNIQUE_HEADERS else pair)
    return headers


class ConnectError(Exception):
    """There is no connection; the first argument is the reason, a stable word."""


class Endpoint(Struct, frozen=True, kw_only=True):
    """The URL of APNs, and timeouts: `connect` seconds until its settings came, `quiet` until a ping is sent."""

    url: str
    tls: ssl.SSLContext
    connect: float = 10.0
    quiet: float = 15.0


async def connect(endpoint: Endpoint, changed: Callable[[], None]) -> ApnsConnection:
    """Connects and waits for the server's settings; raises ConnectError."""
    address = urlsplit(endpoint.url)
    host, port = address.hostname or "", address.port or 443
    made: list[ApnsConnection] = []

    def make() -> ApnsConnection:
        made.append(ApnsConnection(address.netloc, changed=changed, quiet=endpoint.quiet))
        return made[0]

    established = False
    try:
        async with asyncio.timeout(endpoint.connect):
            loop = asyncio.get_running_loop()
            transport, connection = await loop.create_connection(make, host, port, ssl=endpoint.tls)
            if transport.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
                raise ConnectError("apns_no_http2")
            await connection.ready
            if connection.closing:
                raise ConnectionResetError("closed before its settings came")
        established = True
    except OSError as error:  # a TimeoutError too
        raise ConnectError(f"apns_{network_failure(error)}") from error
    finally:
        if made and not established:
            made[0].abort("not_greeted")
    return connection
