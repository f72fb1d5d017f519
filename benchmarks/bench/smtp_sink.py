"""An SMTP server that accepts every mail, and prints when (monotonic) it accepted one with a number in its subject.

A separate process that does as little as possible: `python -m bench.smtp_sink` prints its port first.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time

MARK = "urgent no. "
_MARKED = re.compile(rb"^Subject: .*" + MARK.encode() + rb"(\d+)", re.MULTILINE)


class Sink(asyncio.Protocol):
    """One connection; reads only what it needs."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._rest = b""
        self._in_data = False
        transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while True:
            end = b"\r\n.\r\n" if self._in_data else b"\r\n"
            line, found, rest = self._rest.partition(end)
            if not found:
                return
            self._rest = rest
            if self._in_data:
                self._accept(line)
            else:
                self._reply(line[:4].upper())

    def _accept(self, mail: bytes) -> None:
        self._in_data = False
        self._transport.write(b"250 accepted\r\n")
        if match := _MARKED.search(mail):
            print(int(match[1]), time.monotonic(), flush=True)

    def _reply(self, verb: bytes) -> None:
        if verb == b"DATA":
            self._in_data = True
            self._transport.write(b"354 go on\r\n")
        elif verb == b"EHLO":
            self._transport.write(b"250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
        elif verb == b"QUIT":
            self._transport.write(b"221 bye\r\n")
            self._transport.close()
        else:
            self._transport.write(b"250 ok\r\n")


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until its starter goes


if __name__ == "__main__":
    asyncio.run(main())
