"""One HTTP/2 connection of the APNs far end: frames in and out, nothing of what they mean."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol, cast

import msgspec
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame
from msgspec import Struct

_SLOW_BODY = 0.002  # seconds between two bytes
_WINDOW = 2**24  # so that bodies wait for no WINDOW_UPDATE, as with Apple


class _Request(Struct):
    headers: dict[str, str]
    body: bytearray


class _Piece(Struct):
    stream: int
    data: bytes
    last: bool


class Http2Server(Protocol):
    """The server of connections: how many streams each may have, and what takes its requests."""

    streams: int
    first_streams: int
    sends_settings: bool
    connected: int
    wires: set[Wire]

    def take(self, wire: Wire, stream: int, headers: dict[str, str], body: bytes) -> None:
        """Takes a whole request."""


class Wire(asyncio.Protocol):
    """A connection; it hands whole requests to its server."""

    def __init__(self, server: Http2Server) -> None:
        self._server = server
        self._requests: dict[int, _Request] = {}
        self._bodies: deque[_Piece] = deque()
        self._last: int | None = None  # the last stream that counts, once it went away
        self._trusted = False
        self._transport: asyncio.WriteTransport | None = None
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.frozen = not server.sends_settings
        self.number = 0

    # Responses.

    def reply(
        self,
        stream: int,
        status: int,
        headers: Iterable[tuple[str, str]],
        body: bytes,
        pieces: int = 1,
    ) -> None:
        """Sends a whole response; nothing where the client has reset the stream."""
        try:
            head = [(":status", str(status)), *headers]
            self._h2.send_headers(stream, head, end_stream=not body)
        except StreamClosedError:
            return
        size = -(-len(body) // pieces) or 1
        for start in range(0, len(body), size):
            last = start + size >= len(body)
            self._bodies.append(_Piece(stream, body[start : start + size], last))
        self._send_bodies()

    def reset(self, stream: int, code: int) -> None:
        """Ends one stream by RST_STREAM."""
        self._h2.reset_stream(stream, ErrorCodes(code))
        self._flush()

    def go_away(self, last: int, code: int, reason: str) -> None:
        """Sends GOAWAY; requests after stream `last` are ignored from now on.

        Without h2, which sends nothing more on a connection after its own GOAWAY.
        """
        data = msgspec.json.encode({"reason": reason}) if reason else b""
        frame = GoAwayFrame(0, last_stream_id=last, error_code=code, additional_data=data)
        self._last = last
        self._write(frame.serialize())

    def send_slowly(self, stream: int, status: int) -> None:
        """Sends the status, then one byte after another, until the stream ends."""
        self._h2.send_headers(stream, [(":status", str(status))])
        self._send_byte(stream)

    def send_garbage(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self._write(data)

    def drop(self) -> None:
        """Closes the connection at once."""
        transport, self._transport = self._transport, None  # nothing more is written
        if transport is not None:
            with suppress(AttributeError):  # early 3.11: a TLS transport that is closed already
                transport.abort()

    def trusted(self, yes: bool) -> None:
        """Allows more streams at the first valid provider token, as Apple does."""
        if yes and not self._trusted:
            self._trusted = True
            self.limit(self._server.streams)

    def limit(self, streams: int) -> None:
        """Sets how many streams may be open at once from now on."""
        self._h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: streams})
        self._flush()

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._server.connected += 1
        self._server.wires.add(self)
        self.number = self._server.connected
        self._h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: self._server.first_streams,
                SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
            },
        )
        if not self.frozen:
            self._h2.initiate_connection()
            self._h2.increment_flow_control_window(_WINDOW)
            self._flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._server.wires.discard(self)
        self._requests.clear()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        if self.frozen:
            return
        try:
            events = self._h2.receive_data(data)
        except ProtocolError:
            self._flush()
            self.drop()
            return
        for event in events:
            self._handle(event)
        self._send_bodies()

    def _handle(self, event: Event) -> None:
        match event:
            case RequestReceived():
                headers = {str(name): str(value) for name, value in event.headers}
                self._requests[event.stream_id] = _Request(headers, bytearray())
            case DataReceived():
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if request := self._requests.get(event.stream_id):
                    request.body += event.data
            case StreamEnded():
                gone = self._last is not None and event.stream_id > self._last
                if not gone and (request := self._requests.pop(event.stream_id, None)):
                    self._server.take(self, event.stream_id, request.headers, bytes(request.body))
            case StreamReset():
                self._requests.pop(event.stream_id, None)
            case ConnectionTerminated():
                self.drop()

    def _send_bodies(self) -> None:
        """Sends as much as the client's window allows; the rest waits for its acknowledgements."""
        while self._bodies:
            piece = self._bodies[0]
            try:
                if self._h2.local_flow_control_window(piece.stream) < len(piece.data):
                    break
                self._h2.send_data(piece.stream, piece.data, end_stream=piece.last)
            except StreamClosedError:
                pass  # the client has reset the stream
            self._bodies.popleft()
        self._flush()

    def _send_byte(self, stream: int) -> None:
        if self._transport is None:
            return
        try:
            self._h2.send_data(stream, b"{")
        except ProtocolError:  # the client has reset the stream, or its window is full
            return
        self._flush()
        asyncio.get_running_loop().call_later(_SLOW_BODY, self._send_byte, stream)

    def _flush(self) -> None:
        self._write(self._h2.data_to_send())

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and not self.frozen:
            self._transport.write(data)
