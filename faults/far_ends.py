"""SMTP, APNs and FCM in a process of their own: each acceptance is recorded before the reply.

`python -m faults.far_ends FOLDER --slots 2 --seed 7` prints the settings of each slot: each worker has servers of its
own, so that the runner knows which worker sent a message. A line of JSON on standard input changes how a channel
behaves: {"channel": "smtp", "mode": "drop_after_data", "share": 0.5}; mode "" is normal behaviour.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import time
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

from faults.journal import Journal
from tocsin.testing.apns import (
    ApnsReply,
    ApnsServer,
    Authority,
    Drop,
    GoAway,
    Key,
    Received,
    Reset,
    Rules,
)
from tocsin.testing.far_end import Fault, Script, Turn
from tocsin.testing.fcm import INTERNAL, FcmServer, ReceivedMessage, error, unavailable

TOPIC = "com.example.faults"
RETRY_AFTER = 3  # seconds
MARKER = re.compile(r"\bM\d{6}\b")


class Behaviour:
    """The current behaviour of one channel."""

    def __init__(self, seed: int) -> None:
        self.mode = ""
        self._share = 1.0
        self._random = random.Random(seed)

    def become(self, mode: str, share: float) -> None:
        self.mode, self._share = mode, share

    def now(self) -> str:
        """Returns the mode for this request; "" for normal behaviour."""
        return self.mode if self.mode and self._random.random() < self._share else ""

    def even(self) -> bool:
        """Returns whether a request whose response is lost was accepted nevertheless."""
        return self._random.random() < 0.5


class Smtp(asyncio.Protocol):
    """One connection of an SMTP client."""

    def __init__(self, slot: int, behaviour: Behaviour, journal: Journal, delay: float) -> None:
        self._slot = slot
        self._behaviour = behaviour
        self._journal = journal
        self._delay = delay
        self._rest = b""
        self._in_data = self._taking = False
        self._to = ""
        self._began = 0.0
        self.hangs = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._behaviour.now() == "421":
            transport.write(b"421 4.3.2 closing\r\n")
            transport.close()
        else:
            transport.write(b"220 far end ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._rest += data
        self._read()

    def _read(self) -> None:
        """Handles what came, in its order: commands behind a body wait until it has its reply (RFC 2920)."""
        while not (self._taking or self._transport.is_closing()):
            end = b"\r\n.\r\n" if self._in_data else b"\r\n"
            line, found, rest = self._rest.partition(end)
            if not found:
                return
            self._rest = rest
            if self._in_data:
                self._in_data, self._taking = False, True
                asyncio.get_running_loop().call_later(self._delay, self._take, line)
            else:
                self._command(line)

    def _command(self, line: bytes) -> None:
        verb = line[:4].upper()
        if verb == b"EHLO":
            self._transport.write(b"250-far-end\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
        elif verb == b"MAIL":
            self._began = time.time()
            self._transport.write(b"250 ok\r\n")
        elif verb == b"RCPT":
            self._to = line.decode().partition("<")[2].partition(">")[0]
            self._transport.write(b"250 ok\r\n")
        elif verb == b"DATA":
            self._in_data = True
            self._transport.write(b"354 go on\r\n")
        elif verb == b"QUIT":
            self._transport.write(b"221 bye\r\n")
            self._transport.close()
        else:
            self._transport.write(b"250 ok\r\n")

    def _take(self, content: bytes) -> None:
        if self._transport.is_closing():
            return  # the client has gone, and the mail was not accepted
        mode = self._behaviour.now()
        refusal = {"451": b"451 4.3.0 later", "554": b"554 5.7.1 policy", "421": b"421 4.3.2 no"}
        if mode in refusal:
            self._note(content, result="refused", reply=mode)
            self._transport.write(refusal[mode] + b"\r\n")
        elif mode in {"reset", "hang"}:
            self._note(content, result="ignored", reply=mode)
        else:
            lost = mode in {"drop_after_data", "hang_after_data"}
            self._note(content, result="accepted", reply="lost" if lost else "250")
            if not lost:
                self._transport.write(b"250 accepted\r\n")
        self.hangs = mode in {"hang", "hang_after_data"}
        if mode in {"reset", "drop_after_data", "421"}:
            self._transport.close()
        elif not self.hangs:
            self._taking = False
            self._read()

    def _note(self, content: bytes, **more: Any) -> None:
        mail = message_from_bytes(content, policy=policy.SMTP)
        body = mail.get_body(("plain",))
        text = f"{mail['Subject']}\n{body.get_content() if body else ''}"
        self._journal.write(
            at=time.time(),
            began=self._began,
            channel="email",
            slot=self._slot,
            id=str(mail["Message-ID"]),
            to=self._to,
            event_type=str(mail["X-Tocsin-Event"]),
            markers=sorted(set(MARKER.findall(text))),
            **more,
        )

    def cut(self) -> None:
        self._transport.abort()


class SmtpServer:
    """One slot's SMTP server."""

    def __init__(self, slot: int, behaviour: Behaviour, journal: Journal, delay: float) -> None:
        self._given = (slot, behaviour, journal, delay)
        self._open: set[Smtp] = set()
        self.port = 0

    async def start(self) -> None:
        server = await asyncio.get_running_loop().create_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    def _connected(self) -> Smtp:
        session = Smtp(*self._given)
        self._open.add(session)
        return session

    def cut(self) -> None:
        """Ends hanging connections."""
        for session in self._open:
            if session.hangs:
                session.cut()
        self._open = {session for session in self._open if not session.hangs}


class Apns(ApnsServer):
    """One slot's APNs server."""

    def __init__(
        self,
        slot: int,
        behaviour: Behaviour,
        journal: Journal,
        authority: Authority,
        key: Key,
        rules: Rules,
    ) -> None:
        super().__init__(authority, key, topics={TOPIC}, rules=rules, keep=1)
        self._slot = slot
        self._behaviour = behaviour
        self._journal = journal

    def take(self, wire: Any, stream: int, headers: dict[str, str], body: bytes) -> None:
        mode = self._behaviour.now()
        device = headers.get(":path", "").rpartition("/")[2]
        act: Any = {
            "429": ApnsReply(429, "TooManyRequests", headers=(("retry-after", str(RETRY_AFTER)),)),
            "503": ApnsReply(503, "ServiceUnavailable"),
            "410": ApnsReply(410, "Unregistered", int(time.time() * 1000)),
            "goaway": GoAway(processed=self._behaviour.even()),
            "rst": Reset(),
            "drop": Drop(),
        }.get(mode)
        if act is not None:
            self.plan(device, act)
        if mode in {"rst", "drop"} and self._behaviour.even():
            self._note(device, headers, body.decode(), result="accepted", reply="lost")
        if mode == "drop":
            # recent responses on this connection may not have been sent yet
            self._journal.write(at=time.time(), channel="apns", slot=self._slot, result="cut")
        super().take(wire, stream, headers, body)

    def _reply(self, reply: ApnsReply, wire: Any, stream: int, record: Received) -> None:
        good = reply.status == 200
        after = dict(reply.headers).get("retry-after")
        self._note(
            record.device,
            record.headers,
            json.dumps(record.payload),
            result="accepted" if good else "refused",
            reply=str(reply.status),
            retry_after=float(after) if after else 0.0,
        )
        super()._reply(reply, wire, stream, record)

    def _note(self, device: str, headers: dict[str, str], payload: str, **more: Any) -> None:
        now = time.time()
        self._journal.write(
            at=now,
            began=now,
            channel="apns",
            slot=self._slot,
            id=headers.get("apns-id", ""),
            to=device,
            markers=sorted(set(MARKER.findall(payload))),
            **more,
        )


class FcmScript(Script):
    """FCM's responses, by its current behaviour."""

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__()
        self._behaviour = behaviour

    def next(self, key: str) -> Turn | None:
        turns: dict[str, Turn] = {
            "429": error(
                429,
                "RESOURCE_EXHAUSTED",
                "Device message rate exceeded.",
                code="QUOTA_EXCEEDED",
                retry_after=str(RETRY_AFTER),
            ),
            "500": INTERNAL,
            "503": unavailable(),
            "reset": Fault.RESET,
            "hang": Fault.HANG,
        }
        return turns.get(self._behaviour.now())


def fcm_server(slot: int, behaviour: Behaviour, journal: Journal) -> FcmServer:
    """Returns one slot's FCM server."""

    def arrived(message: ReceivedMessage) -> None:
        lost = isinstance(message.result, str) and behaviour.even()
        good = message.result == 200 or lost
        now = time.time()
        journal.write(
            at=now,
            began=now,
            channel="fcm",
            slot=slot,
            id=str(message.message.get("data", {}).get("notification_id", "")),
            to=message.token,
            markers=sorted(set(MARKER.findall(json.dumps(message.message)))),
            result="accepted" if good else "refused",
            reply="lost" if lost else str(message.result),
            retry_after=float(RETRY_AFTER) if message.result == 429 else 0.0,
        )

    server = FcmServer(keep=1, on_request=arrived)
    server.script = FcmScript(behaviour)
    return server


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before a mail is taken")
    options = parser.parse_args()
    folder: Path = options.folder
    journal = Journal(folder / "far-ends.jsonl")
    behaviours = {
        name: Behaviour(options.seed * 10 + i) for i, name in enumerate(("smtp", "apns", "fcm"))
    }
    authority, key = Authority(), Key.new()
    ca_file = authority.write(folder / "ca.pem")
    rules = Rules(key, topics=frozenset({TOPIC}))
    smtp: list[SmtpServer] = []
    settings: list[dict[str, str]] = []
    for slot in range(options.slots):
        mails = SmtpServer(slot, behaviours["smtp"], journal, options.delay)
        apns = Apns(slot, behaviours["apns"], journal, authority, key, rules)
        fcm = fcm_server(slot, behaviours["fcm"], journal)
        await mails.start()
        await apns.start()
        await fcm.start()
        smtp.append(mails)
        settings.append(
            {
                "smtp_url": f"smtp://127.0.0.1:{mails.port}",
                "apns_key": key.private,
                "apns_key_id": key.key_id,
                "apns_team_id": key.team_id,
                "apns_topic": TOPIC,
                "apns_url": apns.url,
                "fcm_service_account": fcm.service_account_json,
                "fcm_url": fcm.url,
                "ca_file": str(ca_file),
            }
        )
    print(json.dumps(settings), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        behaviour = behaviours[command["channel"]]
        if "hang" in behaviour.mode and command["channel"] == "smtp":
            for each in smtp:
                each.cut()
        behaviour.become(command["mode"], command.get("share", 1.0))
    # the input ends with the process that started this one


if __name__ == "__main__":
    asyncio.run(main())
