"""Reads thousands of event streams with little CPU time: one epoll, and the numbers found in the received bytes.

A separate process with lines of JSON as input: {"open": [from, to], "port", "path", "token"} opens streams of the
people s1, s2, …; {"collect": [first, count]} replies [[number, when it came (monotonic)], …] when that many came, or
nothing came for ten seconds.
"""

from __future__ import annotations

import json
import re
import resource
import select
import socket
import sys
import time
from typing import Any

from bench.service import token

MARK = "no. %d;"
_MARKED = re.compile(rb"no\. (\d+);")
_AT_ONCE = 200  # connections that are being opened
_QUIET = 10.0  # seconds


class Reader:
    """All streams of one benchmark."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._rests: dict[int, bytes] = {}
        self.came: list[tuple[int, float]] = []

    def open(self, start: int, end: int, port: int, path: str, *, by_token: bool) -> None:
        """Opens more streams, and waits until each has sent something."""
        for first in range(start, end, _AT_ONCE):
            waiting = {
                self._connect(port, path, f"s{number + 1}", by_token)
                for number in range(first, min(end, first + _AT_ONCE))
            }
            while waiting:
                received = self.read(30.0)
                if not received:
                    raise SystemExit(f"{len(waiting)} streams did not open")
                waiting -= received
        deadline = time.monotonic() + 1  # the initial events
        while time.monotonic() < deadline:
            self.read(0.1)

    def read(self, timeout: float) -> set[int]:
        """Reads the available bytes; returns the streams that sent something."""
        ready = self._poll.poll(timeout)
        now = time.monotonic()
        for number, _ in ready:
            data = self._sockets[number].recv(65_536)
            if not data:
                raise SystemExit("a stream ended")
            text = self._rests[number] + data
            end = 0
            for match in _MARKED.finditer(text):
                self.came.append((int(match[1]), now))
                end = match.end()
            self._rests[number] = text[max(end, len(text) - 20) :]
        return {number for number, _ in ready}

    def collect(self, first: int, count: int) -> list[tuple[int, float]]:
        """That many, from this number on; older ones belong to the previous contender."""
        self.came = []
        while len(self.came) < count and self.read(_QUIET):
            if self.came and self.came[0][0] < first:
                self.came = [each for each in self.came if each[0] >= first]
        return self.came

    def _connect(self, port: int, path: str, person: str, by_token: bool) -> int:
        each = socket.create_connection(("127.0.0.1", port))
        bearer = f"Authorization: Bearer {token(person)}\r\n" if by_token else ""
        head = f"GET {path.format(person)} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n"
        each.sendall(f"{head}{bearer}\r\n".encode())
        each.setblocking(False)
        self._sockets[each.fileno()] = each
        self._rests[each.fileno()] = b""
        self._poll.register(each, select.EPOLLIN)
        return each.fileno()


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    reader = Reader()
    print("{}", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        reply: Any
        if "open" in asked:
            reader.open(*asked["open"], asked["port"], asked["path"], by_token=asked["token"])
            reply = None
        else:
            reply = reader.collect(*asked["collect"])
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
