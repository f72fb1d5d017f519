"""HTTP/1.1 by uvicorn and httptools, with the limits and deadlines that those lack.

A client can neither hold a connection open without use, nor make the parser work or keep more than a request is worth:
the head and the body of a request have deadlines, so has a client that does not read its response, and the head, its
number of headers and the requests in a pipeline are limited before the app is called. A body in many small pieces is
parsed in several turns of the event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any, ClassVar

import msgspec
from msgspec import Struct
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tocsin.http.errors import PROBLEM, ProblemDetails

_HEADS_AND_TRAILERS = (
    "The head of the request is larger than {:,} bytes or has more than {} headers."
)
_PIPELINE = "More than {} requests were sent without waiting for a response."
_MALFORMED = "This is no HTTP/1.1 request."
_LATE = "The {} of the request did not arrive in time."
_SLICE = 8192  # bytes that are parsed between two looks at what was parsed


class Limits(Struct, frozen=True):
    """What one connection may do; bytes a second are an average over the deadline beside them."""

    head_bytes: int = 32_768  # of the request line and the headers
    headers: int = 100
    pipelined: int = 64  # requests that wait for an earlier response
    pieces: int = 512  # of a body in one turn of the event loop, each a call of Python's
    unread_bytes: int = 65_536  # of a body that come after its response; then the connection ends
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    body_rate: int = 16_000  # bytes a second, for a body that takes longer than body_seconds
    write_seconds: float = 30.0
    write_rate: int = 1_000  # bytes a second, for a client that reads slowly
    close_seconds: float = 5.0  # from our end of a connection to its abortion


class Connections:
    """The connections of this process: how many are open, and how many were ended for which reason."""

    def __init__(self) -> None:
        self.open = 0
        self.ended: Counter[str] = Counter()


class _Event:
    """As asyncio.Event, which is five times as large; a connection has two."""

    __slots__ = ("_set", "_waiting")

    def __init__(self, *, is_set: bool = False) -> None:
        self._set = is_set
        self._waiting: list[asyncio.Future[None]] | None = None

    def set(self) -> None:
        self._set = True
        waiting, self._waiting = self._waiting, None
        for each in waiting or ():
            if not each.done():
                each.set_result(None)

    def clear(self) -> None:
        self._set = False

    def wait(self) -> Awaitable[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._set:
            future.set_result(None)
        elif self._waiting is None:
            self._waiting = [future]
        else:
            self._waiting.append(future)
        return future


class _FlowControl(FlowControl):
    """uvicorn's, with the smaller event."""

    __slots__ = ("_is_writable_event", "_transport", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.read_paused = self.write_paused = False
        self._is_writable_event: Any = _Event(is_set=True)


class _Pipeline(list[Any]):
    """The requests that wait for an earlier response; a deque is ten times as large while there are none."""

    __slots__ = ()

    def appendleft(self, request: Any) -> None:
        self.insert(0, request)


class Protocol(HttpToolsProtocol):
    """One connection; slots, for uvicorn's attributes too, since thousands of connections may be open."""

    __slots__ = (
        *("access_log", "access_logger", "app", "app_state", "asgi_version", "client", "config"),
        *("connections", "cycle", "expect_100_continue", "flow", "headers", "limit_concurrency"),
        *("logger", "loop", "parser", "pipeline", "root_path", "scheme", "scope", "server"),
        *("server_state", "tasks", "timeout_keep_alive", "timeout_keep_alive_task", "transport"),
        *("url", "ws_protocol_class", "_body_bytes", "_discards", "_head_bytes", "_part"),
        *("_pieces", "_read_deadline", "_refusal", "_requests", "_rest", "_unread_bytes"),
        "_write_deadline",
    )
    connections_of_process: ClassVar[Connections]
    limits: ClassVar[Limits]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.headers = []
        self.pipeline = _Pipeline()  # type: ignore[assignment]
        self._part: str | None = None  # of a request that is being received: "head" or "body"
        self._head_bytes = self._body_bytes = self._unread_bytes = self._pieces = 0
        self._requests = 0  # that began
        self._discards = False
        self._rest = b""  # of what was received, for the next turn of the event loop
        self._refusal = 400, _MALFORMED
        self._read_deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.connections_of_process.open += 1
        super().connection_made(transport)
        self.flow = _FlowControl(transport)
        self._await_rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections_of_process.open -= 1
        self._disarm()
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None
        super().connection_lost(exc)
        # uvicorn does so only where there is no error
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        if self._discarded(len(data)):
            return
        if self._rest:
            self._rest += data
            self.transport.pause_reading()
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        self._pieces, before = 0, self._requests
        for at in range(0, len(data), _SLICE):
            if self._pieces > self.limits.pieces:
                self._rest = data[at:]
                self.transport.pause_reading()
                self.loop.call_soon(self._parse_rest)
                break
            part = data[at : at + _SLICE] if len(data) > _SLICE else data
            super().data_received(part)
            if self._discards or self.transport.is_closing():
                return
            if self._part == "head":
                self._head_bytes += len(part)
            head_bytes, headers = self.limits.head_bytes, self.limits.headers
            if self._head_bytes > head_bytes or len(self.headers) > headers:
                self._too_large()
                self._refuse()
                return
        if self._part is not None or self._requests == before:
            self._await_rest()

    def _parse_rest(self) -> None:
        rest, self._rest = self._rest, b""
        if self._discards or self.transport.is_closing():
            return
        self._parse(rest)
        if not (self._rest or self.flow.read_paused):
            self.transport.resume_reading()

    # Called by the parser; what is raised here ends in send_400_response().

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._part, self._head_bytes = "head", 0
        self._requests += 1

    def on_headers_complete(self) -> None:
        if self._discards:
            raise ValueError
        head = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if head > self.limits.head_bytes or len(self.headers) > self.limits.headers:
            self._too_large()
            raise ValueError
        if len(self.pipeline) >= self.limits.pipelined:
            self._refusal = 400, _PIPELINE.format(self.limits.pipelined)
            raise ValueError
        self._part, self._head_bytes, self._body_bytes, self._unread_bytes = "body", 0, 0, 0
        self._disarm()
        super().on_headers_complete()
        self.cycle.message_event = _Event()  # type: ignore[assignment] # its task has not begun

    def on_body(self, body: bytes) -> None:
        self._pieces += 1
        self._body_bytes += len(body)
        super().on_body(body)
        if self.cycle.response_complete:
            self._unread_bytes += len(body)
            if self._unread_bytes > self.limits.unread_bytes:
                self._end("unread body")

    def on_message_complete(self) -> None:
        self._part = None
        self._disarm()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - ours names the cure
        """Refuses what the parser did not take, or one of the methods above."""
        self._refuse()

    def _unsupported_upgrade_warning(self) -> None:
        """Logs nothing: a client that requests another protocol gets a response in this one."""

    # Deadlines

    def _await_rest(self) -> None:
        """Sets the deadline for the rest of what a client began to send."""
        if self._read_deadline is None:
            body = self._part == "body"
            seconds = self.limits.body_seconds if body else self.limits.head_seconds
            self._read_deadline = self.loop.call_later(seconds, self._late, self._body_bytes)

    def _disarm(self) -> None:
        if self._read_deadline is not None:
            self._read_deadline.cancel()
            self._read_deadline = None

    def _late(self, body_bytes: int) -> None:
        self._read_deadline = None
        least = body_bytes + self.limits.body_rate * self.limits.body_seconds
        waits_for_us = self.flow.read_paused or (self._part != "body" and self._under_way)
        if waits_for_us or (self._part == "body" and self._body_bytes >= least):
            self._await_rest()
            return
        if self._part is None:  # nothing of a request came
            self.connections_of_process.ended["idle timeout"] += 1
            self.transport.close()
            self._close_in_time()
            return
        self._refusal = 408, _LATE.format(self._part)
        self._refuse(f"{self._part} timeout")

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_deadline is None:
            self._await_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_deadline is not None and not self.transport.is_closing():
            self._write_deadline.cancel()
            self._write_deadline = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._close_in_time()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._close_in_time()

    def _close_in_time(self) -> None:
        """Sets a deadline where bytes are unsent: else the socket stays open for as long as nobody reads them."""
        if self._write_deadline is None and self.transport.is_closing():
            self._await_reader()

    def _await_reader(self) -> None:
        """Sets the deadline after which a client that reads nothing, or little, is disconnected."""
        self._write_deadline = self.loop.call_later(
            self.limits.write_seconds, self._unread, self.transport.get_write_buffer_size()
        )

    def _unread(self, before: int) -> None:
        self._write_deadline = None
        most = before - self.limits.write_rate * self.limits.write_seconds
        if 0 < self.transport.get_write_buffer_size() <= most:
            self._await_reader()
            return
        self.connections_of_process.ended["write timeout"] += 1
        self.transport.abort()

    # Ends

    @property
    def _under_way(self) -> bool:
        """Whether a request was received whose response is not complete."""
        cycle: Any = self.cycle  # None before the first one
        return cycle is not None and not cycle.response_complete

    def _too_large(self) -> None:
        limits = self.limits
        self._refusal = 431, _HEADS_AND_TRAILERS.format(limits.head_bytes, limits.headers)

    def _refuse(self, reason: str = "refused") -> None:
        """Responds where that is still possible, and ends the connection."""
        if self._discards:
            return
        if self._under_way:
            if self.cycle.response_started or self._part != "body":
                self.connections_of_process.ended[reason] += 1
                self.transport.abort()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(_response(*self._refusal))
        self._end(reason)

    def _end(self, reason: str) -> None:
        """Closes our side, and the rest soon: a reset at once would take the response from the client."""
        self.connections_of_process.ended[reason] += 1
        self._discards, self._unread_bytes = True, 0
        self._disarm()
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(self.limits.close_seconds, self.transport.abort)

    def _discarded(self, size: int) -> bool:
        """Returns whether what came is discarded, since our side is closed; too much of it aborts the connection."""
        if self._discards:
            self._unread_bytes += size
            if self._unread_bytes > 16 * self.limits.unread_bytes:
                self.transport.abort()
        return self._discards

    def eof_received(self) -> None:
        if self._discards:
            self.transport.abort()


def protocol_class(connections: Connections, limits: Limits | None = None) -> type[Protocol]:
    """Returns the class for `uvicorn.Config(http=…)`."""
    bound = {
        "__slots__": (),
        "connections_of_process": connections,
        "limits": limits or Limits(),
    }
    return type("BoundProtocol", (Protocol,), bound)


def _response(status: int, detail: str) -> bytes:
    phrase = HTTPStatus(status).phrase
    body = msgspec.json.encode(ProblemDetails(phrase, status, detail))
    head = (
        f"HTTP/1.1 {status} {phrase}\r\nContent-Type: {PROBLEM}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
